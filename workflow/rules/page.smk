rule page:
    """Everything of one size on one page that needs no server."""
    input:
        claims="results/{profile}/claims.csv",
        results=lambda wildcards: [path for name in EXPERIMENTS for path in outputs(name, wildcards.profile)],
        searches=searches_with_all,
    output:
        report(
            "results/{profile}/index.html",
            caption="../report/page.rst",
            category="Overview",
            labels={"file": "page", "size": "{profile}"},
        ),
    log:
        "results/{profile}/logs/page.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        folder=output_folder,
        experiments=list(EXPERIMENTS),
        searched=searched,
        spaces=(CHECKOUT / "workflow/search.yaml").as_posix(),
        captions=(CHECKOUT / "workflow/report").as_posix(),
    shell:
        "python -m leapwarp.page --folder {params.folder:q} --experiments {params.experiments}"
        " --captions {params.captions:q} --searches {params.spaces:q} --out {output:q} > {log:q} 2>&1"
