"""The optimizers of the library, one file for each method.

A method ``x`` has three public names: the complete optimizer ``x``, which takes the place of
``optax.adamw``; ``scale_by_x``, which only preconditions gradients, for chains of your own; and the
rule ``X``, whose docstring has the equations. ``optimizer`` makes a complete optimizer of any rule.
The words are explained in ``singd_optax.rules``. To write a method, see ``singd_optax.rules.Rule``
and ``singd_optax.testing.check_rule``.
"""

from singd_optax.optimizers._adafisher import AdaFisher, adafisher, scale_by_adafisher
from singd_optax.optimizers._caspr import CASPR, caspr, scale_by_caspr
from singd_optax.optimizers._ekfac import EKFAC, ekfac, scale_by_ekfac
from singd_optax.optimizers._eva import Eva, EvaF, eva, eva_f, scale_by_eva, scale_by_eva_f
from singd_optax.optimizers._eva_s import EvaS, eva_s, scale_by_eva_s
from singd_optax.optimizers._foof import FOOF, foof, scale_by_foof
from singd_optax.optimizers._ikfac import IKFAC, ikfac, scale_by_ikfac
from singd_optax.optimizers._inverse_free_kl_shampoo import (
    InverseFreeKLShampoo,
    inverse_free_kl_shampoo,
    scale_by_inverse_free_kl_shampoo,
)
from singd_optax.optimizers._inverse_free_shampoo import (
    InverseFreeShampoo,
    inverse_free_shampoo,
    scale_by_inverse_free_shampoo,
)
from singd_optax.optimizers._jorge import Jorge, jorge, scale_by_jorge
from singd_optax.optimizers._kfac import KFAC, kfac, scale_by_kfac
from singd_optax.optimizers._kl_shampoo import KLShampoo, kl_shampoo, scale_by_kl_shampoo
from singd_optax.optimizers._kl_soap import KLSOAP, kl_soap, scale_by_kl_soap
from singd_optax.optimizers._kpsvd import KPSVD, kpsvd, scale_by_kpsvd
from singd_optax.optimizers._locoprop import LocoProp, locoprop, scale_by_locoprop
from singd_optax.optimizers._mini_block_fisher import (
    MiniBlockFisher,
    mini_block_fisher,
    scale_by_mini_block_fisher,
)
from singd_optax.optimizers._mkor import MKOR, mkor, scale_by_mkor
from singd_optax.optimizers._normuon import NorMuon, normuon, scale_by_normuon
from singd_optax.optimizers._psgd_kron import PSGDKron, psgd_kron, scale_by_psgd_kron
from singd_optax.optimizers._recipe import optimizer
from singd_optax.optimizers._rs_kfac import (
    RSKFAC,
    SKFAC,
    rs_kfac,
    scale_by_rs_kfac,
    scale_by_skfac,
    skfac,
)
from singd_optax.optimizers._shampoo import Shampoo, scale_by_shampoo, shampoo
from singd_optax.optimizers._singd import SINGD, ingd, scale_by_singd, singd
from singd_optax.optimizers._sketchy import Sketchy, scale_by_sketchy, sketchy
from singd_optax.optimizers._sm3 import SM3, scale_by_sm3, sm3
from singd_optax.optimizers._soap import SOAP, scale_by_soap, soap
from singd_optax.optimizers._splus import SPlus, scale_by_splus, splus
from singd_optax.optimizers._tekfac import TEKFAC, scale_by_tekfac, tekfac
from singd_optax.optimizers._tkfac import TKFAC, scale_by_tkfac, tkfac
from singd_optax.optimizers._tnt import TNT, scale_by_tnt, tnt

__all__ = [
    "CASPR",
    "EKFAC",
    "FOOF",
    "IKFAC",
    "KFAC",
    "KLSOAP",
    "KPSVD",
    "MKOR",
    "RSKFAC",
    "SINGD",
    "SKFAC",
    "SM3",
    "SOAP",
    "TEKFAC",
    "TKFAC",
    "TNT",
    "AdaFisher",
    "Eva",
    "EvaF",
    "EvaS",
    "InverseFreeKLShampoo",
    "InverseFreeShampoo",
    "Jorge",
    "KLShampoo",
    "LocoProp",
    "MiniBlockFisher",
    "NorMuon",
    "PSGDKron",
    "SPlus",
    "Shampoo",
    "Sketchy",
    "adafisher",
    "caspr",
    "ekfac",
    "eva",
    "eva_f",
    "eva_s",
    "foof",
    "ikfac",
    "ingd",
    "inverse_free_kl_shampoo",
    "inverse_free_shampoo",
    "jorge",
    "kfac",
    "kl_shampoo",
    "kl_soap",
    "kpsvd",
    "locoprop",
    "mini_block_fisher",
    "mkor",
    "normuon",
    "optimizer",
    "psgd_kron",
    "rs_kfac",
    "scale_by_adafisher",
    "scale_by_caspr",
    "scale_by_ekfac",
    "scale_by_eva",
    "scale_by_eva_f",
    "scale_by_eva_s",
    "scale_by_foof",
    "scale_by_ikfac",
    "scale_by_inverse_free_kl_shampoo",
    "scale_by_inverse_free_shampoo",
    "scale_by_jorge",
    "scale_by_kfac",
    "scale_by_kl_shampoo",
    "scale_by_kl_soap",
    "scale_by_kpsvd",
    "scale_by_locoprop",
    "scale_by_mini_block_fisher",
    "scale_by_mkor",
    "scale_by_normuon",
    "scale_by_psgd_kron",
    "scale_by_rs_kfac",
    "scale_by_shampoo",
    "scale_by_singd",
    "scale_by_sketchy",
    "scale_by_skfac",
    "scale_by_sm3",
    "scale_by_soap",
    "scale_by_splus",
    "scale_by_tekfac",
    "scale_by_tkfac",
    "scale_by_tnt",
    "shampoo",
    "singd",
    "sketchy",
    "skfac",
    "sm3",
    "soap",
    "splus",
    "tekfac",
    "tkfac",
    "tnt",
]
