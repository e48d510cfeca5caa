rule prepare:
    """All images of one source in one file, checked and with a checksum. The file says which source was used."""
    output:
        "results/data/alphabets.safetensors",
    log:
        "results/data/prepare.log",
    priority: 200
    conda:
        "../envs/leapwarp.yaml"
    params:
        source=lambda wildcards: config["data"]["source"],
        folder=folder_option,
    shell:
        "python -m leapwarp.data.prepare --source {params.source:q} {params.folder:q} --out {output:q}"
        " 2>&1 | tee {log:q}"


rule prepare_imagenet:
    """The images of mini- or tiered-ImageNet, or of their substitute, in one file."""
    output:
        "results/data/{subset}_imagenet.safetensors",
    log:
        "results/data/prepare_{subset}_imagenet.log",
    wildcard_constraints:
        subset="mini|tiered",
    priority: 200
    conda:
        "../envs/leapwarp.yaml"
    params:
        source=lambda wildcards: config["data"].get(f"{wildcards.subset}_imagenet", "auto"),
        folder=folder_option,
    shell:
        "python -m leapwarp.data.prepare_imagenet --set {wildcards.subset} --source {params.source:q} {params.folder:q}"
        " --out {output:q} 2>&1 | tee {log:q}"


rule prepare_images:
    """All available image data sets in one file, checked. The log says which were left out and why."""
    output:
        "results/data/images.safetensors",
    log:
        "results/data/prepare_images.log",
    priority: 200
    conda:
        "../envs/leapwarp.yaml"
    params:
        source=lambda wildcards: config["data"]["source"],
        folder=folder_option,
        sets=lambda wildcards: ["--sets", *config["data"]["sets"]] if "sets" in config["data"] else [],
    shell:
        "python -m leapwarp.data.prepare_images --source {params.source:q} {params.folder:q} {params.sets:q}"
        " --out {output:q} 2>&1 | tee {log:q}"
