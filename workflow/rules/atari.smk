# Leap's meta-training on Atari is a chain of jobs. For every seed, a meta-step has a job for each game, and these can
# run in parallel. Then an update takes the mean of their meta-gradients. The next meta-step begins with its result:
#
#   meta/step0/seed0/game*.safetensors -> meta/step1/seed0.safetensors -> meta/step1/seed0/game*.safetensors -> ...
#
# A share is the part of Leap's meta-gradient that comes from one game. If the chain is interrupted, finished shares and
# updates are kept, and a game continues from its checkpoint. Shares are removed once they are summed (2.7 MB each, 43
# GB for the 16,000 of `paper`). Initialisations with Adam's state (8 MB each, 8 GB) and curves are kept. Games are in
# no group of jobs: a group waits for the inputs of all its jobs, so jobs that depend on each other would deadlock.


rule atari_game:
    """Learn one game of a meta-step from the initialisation: its share of Leap's meta-gradient, and its curve."""
    input:
        start=start_of,
        code="results/{size}/atari/code.txt",
    output:
        share=temp("results/{size}/atari/meta/step{k}/seed{seed}/game{place}.safetensors"),
        curve="results/{size}/atari/meta/step{k}/seed{seed}/game{place}.csv",
    log:
        "results/{size}/atari/logs/meta/step{k}/seed{seed}/game{place}.log",
    benchmark:
        "results/{size}/atari/benchmarks/meta/step{k}/seed{seed}/game{place}.tsv"
    wildcard_constraints:
        k=r"\d+",
        seed=r"\d+",
        place=r"\d+",
    priority: 8
    conda:
        "../envs/leapwarp.yaml"
    resources:
        device=config["device"],
    params:
        start=start_option,
        settings=chain_settings,
        games=lambda wildcards: chain_of(wildcards)["games"],
        checkpoints="results/{size}/atari/checkpoints/meta/step{k}/seed{seed}",
    shell:
        "exec python -m leapwarp.experiments.atari.chain game --size {wildcards.size} --seed {wildcards.seed}"
        " --settings {params.settings:q}"
        " --meta-step {wildcards.k} --game {wildcards.place} --games {params.games} {params.start:q}"
        " --out {output.share:q} --curve {output.curve:q} --checkpoints {params.checkpoints:q}"
        " --device {resources.device} > {log:q} 2>&1"


rule atari_update:
    """The sum of the shares of all games of a meta-step, and the next initialisation."""
    input:
        shares=shares,
        start=before,
    output:
        "results/{size}/atari/meta/step{k}/seed{seed}.safetensors",
    log:
        "results/{size}/atari/logs/meta/step{k}/seed{seed}.log",
    wildcard_constraints:
        k=r"[1-9]\d*",
        seed=r"\d+",
    priority: 50
    localrule: True
    conda:
        "../envs/leapwarp.yaml"
    params:
        start=start_option,
        settings=chain_settings,
        done=lambda wildcards: int(wildcards.k) - 1,
    shell:
        "python -m leapwarp.experiments.atari.chain update --size {wildcards.size} --seed {wildcards.seed}"
        " --settings {params.settings:q}"
        " --meta-step {params.done} {params.start:q} --shares {input.shares:q} --out {output:q} > {log:q} 2>&1"


rule atari_curves:
    """The learning curves of meta-training in one file. The command names the folder, of 16,000 files at `paper`."""
    input:
        curves_of_games,
    output:
        "results/{size}/atari/meta_curves.csv",
    log:
        "results/{size}/atari/logs/meta_curves.log",
    priority: 100
    localrule: True
    conda:
        "../envs/leapwarp.yaml"
    params:
        folder="results/{size}/atari/meta",
        seeds=lambda wildcards: planned(wildcards.size)[0]["atari"].seeds,
        meta_steps=lambda wildcards: chain_of(wildcards)["meta_steps"],
        games=lambda wildcards: chain_of(wildcards)["games"],
    shell:
        "python -m leapwarp.experiments.atari.chain curves --folder {params.folder:q} --size {wildcards.size}"
        " --seeds {params.seeds} --meta-steps {params.meta_steps} --games {params.games} --out {output:q}"
        " > {log:q} 2>&1"


rule atari_state:
    """The last initialisations of some seeds as a state, as the rule `train` makes it for other experiments."""
    input:
        chain_ends,
    output:
        state="results/{size}/{experiment}/states/{method}/tasks{n_tasks}/seeds{first}-{last}.safetensors",
        history="results/{size}/{experiment}/states/{method}/tasks{n_tasks}/seeds{first}-{last}.csv",
    log:
        "results/{size}/{experiment}/logs/train/{method}/tasks{n_tasks}/seeds{first}-{last}.log",
    wildcard_constraints:
        experiment="atari",
    priority: 100
    localrule: True
    conda:
        "../envs/leapwarp.yaml"
    params:
        settings=chain_settings,
    shell:
        "python -m leapwarp.experiments.atari.chain state --initialisations {input:q} --method {wildcards.method}"
        " --size {wildcards.size} --settings {params.settings:q} --out {output.state:q} --history {output.history:q}"
        " > {log:q} 2>&1"


ruleorder: atari_state > train
