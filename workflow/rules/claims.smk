rule claims:
    """A verdict on every claim of the papers that the experiments of this size can decide."""
    input:
        claims=(CHECKOUT / "paper/claims.yaml").as_posix(),
        rows=lambda wildcards: [f"results/{wildcards.profile}/{name}/rows.csv" for name in EXPERIMENTS],
    output:
        report(
            "results/{profile}/claims.csv",
            caption="../report/claims.rst",
            category="Overview",
            labels={"file": "claims", "size": "{profile}"},
        ),
    log:
        "results/{profile}/logs/claims.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    shell:
        "python -m leapwarp.claims decide --claims {input.claims:q} --profile {wildcards.profile} --rows {input.rows:q}"
        " --out {output:q} > {log:q} 2>&1"


rule all_claims:
    """The verdicts of all sizes that there are, in one file."""
    input:
        f"results/{config['profile']}/claims.csv",
    output:
        "results/claims.csv",
    log:
        "results/logs/claims.log",
    priority: 100
    conda:
        "../envs/leapwarp.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    shell:
        "python -m leapwarp.claims merge --out {output:q} results/*/claims.csv > {log:q} 2>&1"
