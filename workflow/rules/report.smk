# High priorities: a table or figure is made as soon as its runs are there, before the next run starts.


rule gather:
    """The rows of all runs of one experiment in one tidy file."""
    input:
        run_files,
    output:
        rows="results/{profile}/{experiment}/rows.csv",
        runs="results/{profile}/{experiment}/runs.json",
    log:
        "results/{profile}/{experiment}/logs/gather.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    shell:
        "python -m leapwarp.results gather --out {output.rows:q} --origins {output.runs:q} {input:q} > {log:q} 2>&1"


rule table:
    """Ours beside the paper's numbers: mean, standard deviation, number of seeds."""
    input:
        rows="results/{profile}/{experiment}/rows.csv",
        paper=lambda wildcards: paper_numbers(wildcards.experiment),
    output:
        csv=report(
            "results/{profile}/{experiment}/{table}.csv",
            caption="../report/table.rst",
            category="{experiment}",
            subcategory="tables",
            labels={"file": "{table}", "size": "{profile}"},
        ),
        md="results/{profile}/{experiment}/{table}.md",
    log:
        "results/{profile}/{experiment}/logs/{table}.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        folder=output_folder,
    shell:
        "python -m leapwarp.tables.{wildcards.experiment} --rows {input.rows:q} --paper {input.paper:q}"
        " --out-dir {params.folder:q}"
        " > {log:q} 2>&1"


for name in EXPERIMENTS:

    rule:
        name:
            f"figures_{name}"
        input:
            rows=f"results/{{profile}}/{name}/rows.csv",
            paper=paper_numbers(name),
            curves=meta_curves(name),
        output:
            [
                report(
                    f"results/{{profile}}/{name}/figures/{figure}.png",
                    caption=f"../report/{figure}.rst",
                    category=name,
                    subcategory="figures",
                    labels={"file": figure, "size": "{profile}"},
                )
                for figure in CATALOGUE[name].figures
            ],
        log:
            f"results/{{profile}}/{name}/logs/figures.log",
        priority: 100
        localrule: True
        conda:
            "../envs/leapwarp.yaml"
        threads: 1
        resources:
            mem_mb=2000,
            runtime=10,
        params:
            script=CATALOGUE[name].script or name,
            experiment=name,
            folder=output_folder,
        shell:
            "python -m leapwarp.figures.{params.script} --experiment {params.experiment} --rows {input.rows:q}"
            " --paper {input.paper:q} --out-dir {params.folder:q} > {log:q} 2>&1"
