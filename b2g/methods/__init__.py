"""The registry: one file per method, one entry here."""

from b2g.methods.b2g import B2G
from b2g.methods.bm3d import BM3D
from b2g.methods.consensus import Consensus
from b2g.methods.lichi import LIChI
from b2g.methods.nl_ridge import NLRidge
from b2g.methods.self2self import Self2Self
from b2g.methods.zs_n2n import ZSN2N

METHODS = {method.name: method for method in (B2G, Consensus, Self2Self, ZSN2N, BM3D, NLRidge, LIChI)}

__all__ = ["B2G", "BM3D", "Consensus", "LIChI", "METHODS", "NLRidge", "Self2Self", "ZSN2N"]
