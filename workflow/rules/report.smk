# These rules have high priorities, so that a table or figure is made as soon as its runs are done.


rule gather:
    """The rows of all runs of one experiment in one tidy file."""
    input:
        lambda wildcards: plan.row_files(of(wildcards)),
    output:
        rows="results/{size}/{experiment}/rows.csv",
        runs="results/{size}/{experiment}/runs.json",
    log:
        "results/{size}/{experiment}/logs/gather.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    shell:
        "python -m leapwarp.report gather --out {output.rows:q} --origins {output.runs:q} {input:q} > {log:q} 2>&1"


rule table:
    """The table with our numbers beside the paper's, and the document that the page and the snapshot render."""
    input:
        rows="results/{size}/{experiment}/rows.csv",
        runs="results/{size}/{experiment}/runs.json",
        paper=lambda wildcards: paper_numbers(of(wildcards).about),
    output:
        csv=report(
            "results/{size}/{experiment}/{table}.csv",
            caption="../report/table.rst",
            category="{experiment}",
            subcategory="tables",
            labels={"file": "{table}", "size": "{size}"},
        ),
        md="results/{size}/{experiment}/{table}.md",
        document="results/{size}/{experiment}/{table}.json",
    log:
        "results/{size}/{experiment}/logs/{table}.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    params:
        where=lambda wildcards: of(wildcards).where,
        note=lambda wildcards: of(wildcards).note,
        names=lambda wildcards: names(of(wildcards).about),
        captions=lambda wildcards: of(wildcards).about.figures,
        said=lambda wildcards: said_of([of(wildcards)]),
        folder=output_folder,
    shell:
        "python -m leapwarp.report table {params.where:q} --rows {input.rows:q} --paper {input.paper:q}"
        " --note {params.note:q} --out-dir {params.folder:q} > {log:q} 2>&1"


for name, jobs in JOBS.items():

    rule:
        name:
            f"figures_{name}"
        input:
            rows=f"results/{{size}}/{name}/rows.csv",
            paper=lambda wildcards, about=jobs.about: paper_numbers(about),
            files=lambda wildcards, name=name: plan.figure_files(planned(wildcards.size)[0][name]),
        output:
            [
                report(
                    f"results/{{size}}/{name}/figures/{figure}.png",
                    caption=caption(jobs.about, figure),
                    category=name,
                    subcategory="figures",
                    labels={"file": figure, "size": "{size}"},
                )
                for figure in jobs.about.figures
            ],
            [f"results/{{size}}/{name}/figures/{figure}.pdf" for figure in jobs.about.figures],
        log:
            f"results/{{size}}/{name}/logs/figures.log",
        priority: 100
        localrule: True
        conda:
            "../envs/leapwarp.yaml"
        params:
            where=lambda wildcards, where=jobs.where: where,
            looks=lambda wildcards, about=jobs.about: looks(about),
            files=lambda wildcards, input: ["--files", *input.files] if input.files else [],
            folder=output_folder,
        shell:
            "python -m leapwarp.report figures {params.where:q} --rows {input.rows:q} --paper {input.paper:q}"
            " {params.files:q} --out-dir {params.folder:q} > {log:q} 2>&1"


rule claims:
    """A verdict on every claim of the papers that the experiments of this size can decide."""
    input:
        claims=lambda wildcards: (CHECKOUT / "paper/claims.yaml").as_posix(),
        rows=lambda wildcards: [f"{jobs.folder}/rows.csv" for jobs in planned(wildcards.size)[0].values()],
        power=lambda wildcards: stated_power(wildcards.size),
    output:
        report(
            "results/{size}/claims.csv",
            caption="../report/claims.rst",
            category="Overview",
            labels={"file": "claims", "size": "{size}"},
        ),
    log:
        "results/{size}/logs/claims.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    params:
        decides=lambda wildcards: decides(wildcards.size),
        wheres=lambda wildcards: wheres(wildcards.size),
        names=lambda wildcards: [names(jobs.about) for jobs in planned(wildcards.size)[0].values()],
        power=lambda wildcards, input: ["--power", *input.power] if input.power else [],
    shell:
        "python -m leapwarp.report.claims decide --claims {input.claims:q} --size {wildcards.size}"
        " --decides {params.decides} {params.power:q} --experiments {params.wheres:q} --rows {input.rows:q}"
        " --out {output:q} > {log:q} 2>&1"


rule all_claims:
    """The verdicts of all sizes that were run, in one file, those of the largest size first."""
    input:
        f"results/{SIZE}/claims.csv",
    output:
        "results/claims.csv",
    log:
        "results/logs/claims.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    params:
        sizes=LARGEST_FIRST,
    shell:
        "python -m leapwarp.report.claims merge --results results --sizes {params.sizes:q} --out {output:q}"
        " 2>&1 | tee {log:q}"


rule published:
    """The numbers in the papers' tables beside those of this size, and whether methods come in the same order."""
    input:
        lambda wildcards: [f"{jobs.folder}/{jobs.about.table}.csv" for jobs in with_printed(wildcards.size)],
    output:
        document="results/{size}/published.json",
        csv="results/{size}/published.csv",
        figure=report(
            "results/{size}/published.png",
            caption="../report/published.rst",
            category="Overview",
            labels={"file": "published", "size": "{size}"},
        ),
        pdf="results/{size}/published.pdf",
    log:
        "results/{size}/logs/published.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    params:
        folder=output_folder,
        wheres=lambda wildcards: [jobs.where for jobs in with_printed(wildcards.size)],
        said=lambda wildcards: said_of(with_printed(wildcards.size)),
    shell:
        "python -m leapwarp.report.published --folder {params.folder:q} --experiments {params.wheres:q}"
        " --out {output.document:q} > {log:q} 2>&1"


rule page:
    """Everything of one size on one page that needs no server."""
    input:
        claims="results/{size}/claims.csv",
        published=lambda wildcards: (
            [f"results/{wildcards.size}/published.json"] if with_printed(wildcards.size) else []
        ),
        results=lambda wildcards: all_outputs(wildcards.size),
        searches=lambda wildcards: searches_with_all(wildcards.size),
    output:
        report(
            "results/{size}/index.html",
            caption="../report/page.rst",
            category="Overview",
            labels={"file": "page", "size": "{size}"},
        ),
    log:
        "results/{size}/logs/page.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    params:
        folder=output_folder,
        wheres=lambda wildcards: wheres(wildcards.size),
        about=lambda wildcards: about_size(wildcards.size),
        said=lambda wildcards: said_of(planned(wildcards.size)[0].values()),
        searched=searched,
    shell:
        "python -m leapwarp.report.page --folder {params.folder:q} --experiments {params.wheres:q}"
        " --about {params.about:q} --out {output:q} > {log:q} 2>&1"
