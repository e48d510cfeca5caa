# The device is a resource and not a parameter: moving to another machine must not rerun what is there. The checkpoint
# is neither input nor output: Snakemake would delete it when a run fails, and a run could not resume. `exec`: a signal
# to the job reaches the run, and Snakemake waits until that has saved its state. The group matters on a cluster only.


rule run:
    """Meta-train and evaluate one method with one number of tasks, for a few seeds: one CSV and where it came from."""
    input:
        data=data_file,
        settings=winner_file,
    output:
        rows="results/{profile}/{experiment}/runs/{method}/tasks{n_tasks}/seeds{first}-{last}.csv",
        origin="results/{profile}/{experiment}/runs/{method}/tasks{n_tasks}/seeds{first}-{last}.json",
    log:
        "results/{profile}/{experiment}/logs/{method}/tasks{n_tasks}/seeds{first}-{last}.log",
    benchmark:
        "results/{profile}/{experiment}/benchmarks/{method}/tasks{n_tasks}/seeds{first}-{last}.tsv"
    group:
        lambda wildcards: wildcards.profile
    conda:
        "../envs/leapwarp.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: size(wildcards)["mem_mb"],
        runtime=lambda wildcards: size(wildcards)["runtime"],
        gpu=lambda wildcards: size(wildcards)["gpu"],
        device=config["device"],
    params:
        data=data_option,
        settings=settings_option,
        seeds=lambda wildcards: list(range(int(wildcards.first), int(wildcards.last) + 1)),
        checkpoints="results/{profile}/{experiment}/checkpoints/{method}/tasks{n_tasks}",
    shell:
        "exec python -m leapwarp.experiments.{wildcards.experiment} --profile {wildcards.profile}"
        " --method {wildcards.method} --n-tasks {wildcards.n_tasks} --seeds {params.seeds} {params.data:q}"
        " {params.settings:q}"
        " --out {output.rows:q} --checkpoints {params.checkpoints:q} --device {resources.device} > {log:q} 2>&1"


# The headline experiment before the others, and in it the longest runs first, which packs the cores best.
use rule run as run_headline with:
    wildcard_constraints:
        experiment="omniglot_warp",
    priority: 10


use rule run as run_headline_first with:
    wildcard_constraints:
        experiment="omniglot_warp",
        method="warp_leap|maml|leap",
    priority: 20


ruleorder: run_headline_first > run_headline > run
