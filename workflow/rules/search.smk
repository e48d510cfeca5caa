# A trial is a run of its experiment that is judged on validation classes. Its part of search.yaml is a parameter, so
# that a change in one space makes the trials of that method anew and no others.


rule trial:
    """One trial of a random search: draw its settings, then meta-train and judge on validation classes."""
    input:
        data=data_file,
    output:
        settings="results/{profile}/search/{experiment}/{method}/trials/{number}.yaml",
        rows="results/{profile}/search/{experiment}/{method}/trials/{number}.csv",
        origin="results/{profile}/search/{experiment}/{method}/trials/{number}.json",
    log:
        "results/{profile}/search/{experiment}/logs/{method}/{number}.log",
    benchmark:
        "results/{profile}/search/{experiment}/benchmarks/{method}/{number}.tsv"
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
        space=lambda wildcards: as_json(SEARCH[wildcards.experiment]["spaces"][wildcards.method]),
        fixed=lambda wildcards: as_json(SEARCH[wildcards.experiment][wildcards.profile]["settings"]),
        seed=SEARCH_SEED,
        checkpoints="results/{profile}/search/{experiment}/checkpoints/{method}/{number}",
    shell:
        "python -m leapwarp.search --experiment {wildcards.experiment} --method {wildcards.method}"
        " --number {wildcards.number} --space {params.space:q} --fixed {params.fixed:q} --out {output.settings:q}"
        " > {log:q} 2>&1 &&"
        " exec python -m leapwarp.experiments.{wildcards.experiment} --profile {wildcards.profile}"
        " --method {wildcards.method} --n-tasks 0 --seeds {params.seed} --settings {output.settings:q}"
        " --held-out validation {params.data:q} --out {output.rows:q} --checkpoints {params.checkpoints:q}"
        " --device {resources.device} >> {log:q} 2>&1"


rule winner:
    """All trials of a method as a table, and the settings of the best."""
    input:
        trials,
    output:
        csv="results/{profile}/search/{experiment}/{method}/trials.csv",
        md="results/{profile}/search/{experiment}/{method}/trials.md",
        settings="results/{profile}/search/{experiment}/{method}/winner.yaml",
    log:
        "results/{profile}/search/{experiment}/logs/{method}/winner.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        criterion=lambda wildcards: SEARCH[wildcards.experiment]["criterion"],
        folder=output_folder,
    shell:
        "python -m leapwarp.tables.search --criterion {params.criterion} --out-dir {params.folder:q} {input:q}"
        " > {log:q} 2>&1"


rule search_figure:
    """The score of every trial against each setting that was drawn."""
    input:
        "results/{profile}/search/{experiment}/{method}/trials.csv",
    output:
        report(
            "results/{profile}/search/{experiment}/{method}/search.png",
            caption="../report/search.rst",
            category="search",
            subcategory="{experiment}",
            labels={"file": "{method}", "size": "{profile}"},
        ),
    log:
        "results/{profile}/search/{experiment}/logs/{method}/figure.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    shell:
        "python -m leapwarp.figures.search --trials {input:q} --out {output:q} > {log:q} 2>&1"


rule search:
    """The random searches of workflow/search.yaml, at the size that config.yaml names."""
    input:
        searches(config["profile"]),
