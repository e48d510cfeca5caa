"""The papers' experiments: a folder each, found by its experiment.yaml (`leapwarp.catalogue`)."""
