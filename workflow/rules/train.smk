# The device is a resource and not a parameter, since moving to another machine must not rerun finished runs.
# Checkpoints are neither input nor output: Snakemake would delete them when a run fails, and the run could not resume.
# With `exec`, a signal to the job reaches the run, and Snakemake waits until the run has saved its state. Groups matter
# on a cluster only.


rule code:
    """A marker file that results depend on: `--forcerun code` makes all results again after a change in src."""
    output:
        "results/{size}/{experiment}/code.txt",
    log:
        "results/{size}/{experiment}/logs/code.log",
    priority: 200
    conda:
        "../envs/leapwarp.yaml"
    shell:
        "date -u '+results are of the code of this moment: %FT%TZ' > {output:q} 2> {log:q}"


rule train:
    """Meta-train one method with some numbers of tasks and seeds: their learnt parameters, and the history."""
    input:
        data=data_file,
        winner=winner_file,
        code="results/{size}/{experiment}/code.txt",
    output:
        state="results/{size}/{experiment}/states/{method}/tasks{n_tasks}/seeds{first}-{last}.safetensors",
        history="results/{size}/{experiment}/states/{method}/tasks{n_tasks}/seeds{first}-{last}.csv",
    log:
        "results/{size}/{experiment}/logs/train/{method}/tasks{n_tasks}/seeds{first}-{last}.log",
    benchmark:
        "results/{size}/{experiment}/benchmarks/train/{method}/tasks{n_tasks}/seeds{first}-{last}.tsv"
    priority: priority_of
    group:
        lambda wildcards: f"train_{wildcards.size}"
    conda:
        "../envs/leapwarp.yaml"
    resources:
        device=config["device"],
    params:
        where=lambda wildcards: of(wildcards).where,
        settings=training_settings,
        data=data_option,
        winner=winner_option,
        seeds=lambda wildcards: list(range(int(wildcards.first), int(wildcards.last) + 1)),
        n_tasks=lambda wildcards: wildcards.n_tasks.split("_"),
        checkpoints="results/{size}/{experiment}/checkpoints/{method}",
    shell:
        "exec python -m leapwarp.experiments train {params.where:q} --method {wildcards.method}"
        " --n-tasks {params.n_tasks} --seeds {params.seeds} --size {wildcards.size} --settings {params.settings:q}"
        " {params.winner:q} {params.data:q} --out {output.state:q} --history {output.history:q}"
        " --checkpoints {params.checkpoints:q} --device {resources.device} > {log:q} 2>&1"
