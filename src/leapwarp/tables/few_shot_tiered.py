"""Table 1 of the WarpGrad paper, the part on tiered-ImageNet: ours beside theirs.

python -m leapwarp.tables.few_shot_tiered --paper paper/warpgrad.csv \
    --rows results/quick/few_shot_tiered/rows.csv --out-dir results/quick/few_shot_tiered
"""

from leapwarp import tables
from leapwarp.tables.few_shot import build

if __name__ == "__main__":
    tables.main(
        build,
        module="few_shot_tiered",
        description="Make the tiered-ImageNet part of Table 1 of the WarpGrad paper from result rows.",
        paper="warpgrad",
        table="1 tiered",
        name="table_few_shot_tiered",
    )
