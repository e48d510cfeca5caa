# Leap's meta-training on Atari is a chain. For every seed, a meta-step is a job a game, which can run at the same time, and
# an update along the mean of what they return; the next meta-step begins where it ends:
#
#   meta/step0/seed0/game*.safetensors -> meta/step1/seed0.safetensors -> meta/step1/seed0/game*.safetensors -> ...
#
# Finished shares and updates are kept when the chain is cut off, and a game goes on from its checkpoint. Shares are
# removed once they are summed up (2.7 MB each, 43 GB in a `paper` of 16,000); initialisations, with Adam's state (8 MB each, 8
# GB), and curves stay. Games have no group: one of jobs that wait for each other would wait for itself.


rule atari_game:
    """One game of a meta-step, learnt from the initialisation: its share of Leap's meta-gradient, and its curve."""
    input:
        start=start_of,
    output:
        share=temp("results/{profile}/atari/meta/step{k}/seed{seed}/game{place}.safetensors"),
        curve="results/{profile}/atari/meta/step{k}/seed{seed}/game{place}.csv",
    log:
        "results/{profile}/atari/logs/meta/step{k}/seed{seed}/game{place}.log",
    benchmark:
        "results/{profile}/atari/benchmarks/meta/step{k}/seed{seed}/game{place}.tsv"
    wildcard_constraints:
        k=r"\d+",
        seed=r"\d+",
        place=r"\d+",
    priority: 8
    conda:
        "../envs/leapwarp.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: atari_size(wildcards)["mem_mb"],
        runtime=lambda wildcards: atari_size(wildcards)["runtime"],
        gpu=lambda wildcards: atari_size(wildcards)["gpu"],
        device=config["device"],
    params:
        start=start_option,
        games=lambda wildcards: atari_size(wildcards)["games"],
        checkpoints="results/{profile}/atari/checkpoints/meta/step{k}/seed{seed}",
    shell:
        "exec python -m leapwarp.experiments.atari_chain game --profile {wildcards.profile} --seed {wildcards.seed}"
        " --meta-step {wildcards.k} --game {wildcards.place} --games {params.games} {params.start:q}"
        " --out {output.share:q} --curve {output.curve:q} --checkpoints {params.checkpoints:q}"
        " --device {resources.device} > {log:q} 2>&1"


rule atari_update:
    """The sum of the shares of all games of a meta-step, and the next initialisation."""
    input:
        shares=shares,
        start=before,
    output:
        "results/{profile}/atari/meta/step{k}/seed{seed}.safetensors",
    log:
        "results/{profile}/atari/logs/meta/step{k}/seed{seed}.log",
    wildcard_constraints:
        k=r"[1-9]\d*",
        seed=r"\d+",
    priority: 50
    localrule: True
    conda:
        "../envs/leapwarp.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        start=start_option,
        done=lambda wildcards: int(wildcards.k) - 1,
    shell:
        "python -m leapwarp.experiments.atari_chain update --profile {wildcards.profile} --seed {wildcards.seed}"
        " --meta-step {params.done} {params.start:q} --shares {input.shares:q} --out {output:q} > {log:q} 2>&1"


rule atari_curves:
    """The learning curves of meta-training in one file. The command names the folder: the files are 16,000 at `paper`."""
    input:
        curves_of_games,
    output:
        "results/{profile}/atari/meta_curves.csv",
    log:
        "results/{profile}/atari/logs/meta_curves.log",
    priority: 100
    localrule: True
    conda:
        "../envs/leapwarp.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        folder="results/{profile}/atari/meta",
        seeds=lambda wildcards: atari_size(wildcards)["seeds"],
        meta_steps=lambda wildcards: atari_size(wildcards)["meta_steps"],
        games=lambda wildcards: atari_size(wildcards)["games"],
    shell:
        "python -m leapwarp.tables.atari_meta --folder {params.folder:q} --profile {wildcards.profile}"
        " --seeds {params.seeds} --meta-steps {params.meta_steps} --games {params.games} --out {output:q}"
        " > {log:q} 2>&1"


# As every run, and what it reads is the end of the chain.
use rule run as run_atari with:
    input:
        chain=chain_end,
        settings=winner_file,
    wildcard_constraints:
        experiment="atari",
    priority: 5
    params:
        data=lambda wildcards: ["--data", chain_folder(wildcards)],
        seeds=lambda wildcards: list(range(int(wildcards.first), int(wildcards.last) + 1)),
        checkpoints="results/{profile}/{experiment}/checkpoints/{method}/tasks{n_tasks}",


ruleorder: run_atari > run
