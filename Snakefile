# What to run is in config.yaml, how is in src/leapwarp/experiments/. Nothing here imports torch or the package.
#
#   snakemake                                everything, at the size that config.yaml names
#   snakemake omniglot_warp                  one experiment
#   snakemake --config profile=smoke         another size, in its own folder results/smoke
#   snakemake -n                             what would run, and why
from snakemake.utils import min_version

min_version("9.19")


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


rule all:
    input:
        [outputs(name, config["profile"]) for name in EXPERIMENTS],
        f"results/{config['profile']}/index.html",
        "results/claims.csv",
        searches(config["profile"]) if config["profile"] in config["search"]["in_all"] else [],


for name in EXPERIMENTS:

    rule:
        name:
            name
        input:
            outputs(name, config["profile"]),


include: "workflow/rules/data.smk"
include: "workflow/rules/run.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/atari.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/page.smk"


localrules:
    all,
    prepare,
    prepare_images,
    gather,
    table,
    claims,
    all_claims,
    page,
    winner,
    search_figure,
    search,
