"""What Frankle & Carbin 2019 claim of MNIST, put to Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): the same network,
recipe, figures and claims. Without continued training, and so without claims 8a and 8b.
"""

from dataclasses import replace

from lottery.spec import Data
from lottery.studies.lth_mnist import CLAIMS, ITEMS, LENET, MAIN_SCALING, REINIT
from lottery.studies.study import Item, Planned, Study, claims_files

STUDY = Study(
    runs={"main": Planned(replace(LENET, data=Data("fashion-mnist", MAIN_SCALING)))},
    items={
        "claims": Item(
            "the paper's claims on MNIST, put to Fashion-MNIST, a verdict on each",
            {"main": (REINIT, "one_shot")},
            claims_files,
        ),
        **{name: ITEMS[name] for name in ("fig1", "fig3", "fig4", "fig11", "fig12")},
    },
    main="main",
    claims={name: claim for name, claim in CLAIMS.items() if not claim.run},
    note="The paper's numbers are those of MNIST: it has none of Fashion-MNIST. Whether a claim holds here too is what "
    "the verdicts say.",
)
