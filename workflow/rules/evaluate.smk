# One job evaluates all states of some seeds of a method, at every number of tasks, since starting Python takes as long
# as evaluating a small state. Finished evaluations are kept beside the checkpoints, so an added state is evaluated
# alone.


rule evaluate:
    """Evaluate a trained or untrained method on held-out tasks: rows, and their provenance."""
    input:
        states=states,
        histories=histories,
        data=data_file,
        winner=lambda wildcards: [] if states(wildcards) else winner_file(wildcards),
        code="results/{size}/{experiment}/code.txt",
    output:
        rows="results/{size}/{experiment}/runs/{method}/seeds{first}-{last}.csv",
        origin="results/{size}/{experiment}/runs/{method}/seeds{first}-{last}.json",
    log:
        "results/{size}/{experiment}/logs/evaluate/{method}/seeds{first}-{last}.log",
    benchmark:
        "results/{size}/{experiment}/benchmarks/evaluate/{method}/seeds{first}-{last}.tsv"
    priority: 50
    group:
        lambda wildcards: f"evaluate_{wildcards.size}"
    conda:
        "../envs/leapwarp.yaml"
    resources:
        device=config["device"],
    params:
        where=lambda wildcards: of(wildcards).where,
        method=method_of,
        settings=evaluation_settings,
        states=states_option,
        trained=trained_option,
        given=given_checksum,
        name=name_option,
        data=data_option,
        winner=winner_option,
        arrays=arrays_option,
        checkpoints="results/{size}/{experiment}/checkpoints/{method}",
    shell:
        "exec python -m leapwarp.experiments evaluate {params.where:q} --method {params.method} {params.name:q}"
        " --size {wildcards.size} --settings {params.settings:q} {params.winner:q} {params.data:q} {params.states:q}"
        " {params.trained:q}"
        " --out {output.rows:q} {params.arrays:q} --checkpoints {params.checkpoints:q} --device {resources.device}"
        " > {log:q} 2>&1"


# The same, with arrays for figures, for experiments that write them.
use rule evaluate as evaluate_with_arrays with:
    output:
        rows="results/{size}/{experiment}/runs/{method}/seeds{first}-{last}.csv",
        origin="results/{size}/{experiment}/runs/{method}/seeds{first}-{last}.json",
        arrays="results/{size}/{experiment}/runs/{method}/seeds{first}-{last}.npz",
    wildcard_constraints:
        experiment=any_of(name for name, jobs in JOBS.items() if jobs.about.arrays) or "none",


ruleorder: evaluate_with_arrays > evaluate
