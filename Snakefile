# config.yaml says what to run, workflow/sizes how large, and src/leapwarp/experiments how. Nothing here imports torch.
#
#   snakemake                                everything, at the size that config.yaml names
#   snakemake omniglot_warp                  one experiment
#   snakemake --config size=smoke            another size, in its own folder results/smoke
#   snakemake -n                             what would run, and why
from snakemake.utils import min_version

min_version("9.19")


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


rule all:
    input:
        all_outputs(SIZE),
        f"results/{SIZE}/index.html",
        "results/claims.csv",
        searches_with_all(SIZE),


for name, jobs in JOBS.items():

    rule:
        name:
            name
        input:
            plan.outputs(jobs),


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/atari.smk"
include: "workflow/rules/report.smk"


onerror:
    explain(log)


localrules:
    all,
    code,
    prepare,
    prepare_images,
    gather,
    table,
    claims,
    all_claims,
    published,
    page,
    winner,
    search_figure,
    search,
