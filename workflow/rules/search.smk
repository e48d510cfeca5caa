# A trial is a run of an experiment with drawn settings, whose score is measured on validation classes. The search space
# of its method is a parameter of the rule, so a change of one space repeats the trials of that method only.


rule trial:
    """One trial of a random search: draw its settings, meta-train, and measure the score on validation classes."""
    input:
        data=data_file,
        code="results/{size}/{experiment}/code.txt",
    output:
        settings="results/{size}/search/{experiment}/{method}/trials/{number}.yaml",
        rows="results/{size}/search/{experiment}/{method}/trials/{number}.csv",
        origin="results/{size}/search/{experiment}/{method}/trials/{number}.json",
    log:
        "results/{size}/search/{experiment}/logs/{method}/{number}.log",
    benchmark:
        "results/{size}/search/{experiment}/benchmarks/{method}/{number}.tsv"
    group:
        lambda wildcards: f"train_{wildcards.size}"
    conda:
        "../envs/leapwarp.yaml"
    resources:
        device=config["device"],
    params:
        where=lambda wildcards: of(wildcards).where,
        data=data_option,
        space=lambda wildcards: as_json(of(wildcards).about.search["spaces"][wildcards.method]),
        fixed=lambda wildcards: as_json(of(wildcards).search.get("settings", {})),
        settings=trial_settings,
        checkpoints="results/{size}/search/{experiment}/checkpoints/{method}/{number}",
    shell:
        "exec python -m leapwarp.experiments trial {params.where:q} --method {wildcards.method}"
        " --number {wildcards.number} --space {params.space:q} --fixed {params.fixed:q} --size {wildcards.size}"
        " --settings {params.settings:q} {params.data:q} --out {output.rows:q} --checkpoints {params.checkpoints:q}"
        " --device {resources.device} > {log:q} 2>&1"


rule winner:
    """All trials of a method as a table, and the settings of the best trial."""
    input:
        lambda wildcards: plan.trials(of(wildcards), wildcards.method),
    output:
        csv="results/{size}/search/{experiment}/{method}/trials.csv",
        md="results/{size}/search/{experiment}/{method}/trials.md",
        settings="results/{size}/search/{experiment}/{method}/winner.yaml",
    log:
        "results/{size}/search/{experiment}/logs/{method}/winner.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    params:
        where=lambda wildcards: of(wildcards).where,
        criterion=lambda wildcards: of(wildcards).about.search["criterion"],
        folder=output_folder,
    shell:
        "python -m leapwarp.report.search table --experiment {params.where:q} --criterion {params.criterion}"
        " --out-dir {params.folder:q} {input:q} > {log:q} 2>&1"


rule search_figure:
    """The score of every trial against each setting that was drawn."""
    input:
        "results/{size}/search/{experiment}/{method}/trials.csv",
    output:
        png=report(
            "results/{size}/search/{experiment}/{method}/search.png",
            caption="../report/search.rst",
            category="search",
            subcategory="{experiment}",
            labels={"file": "{method}", "size": "{size}"},
        ),
        pdf="results/{size}/search/{experiment}/{method}/search.pdf",
    log:
        "results/{size}/search/{experiment}/logs/{method}/figure.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    params:
        where=lambda wildcards: of(wildcards).where,
        looks=lambda wildcards: looks(of(wildcards).about),
    shell:
        "python -m leapwarp.report.search figure --experiment {params.where:q} --trials {input:q} --out {output.png:q}"
        " > {log:q} 2>&1"


rule search:
    """The random searches that the size declares."""
    input:
        searches(SIZE),
