"""The registry: one file per method, one entry here."""

from b2g.methods.ap_bsn import APBSN, APBSNMany
from b2g.methods.b2g import B2G
from b2g.methods.blind2unblind import Blind2Unblind, Blind2UnblindMany
from b2g.methods.bm3d import BM3D
from b2g.methods.consensus import Consensus
from b2g.methods.dgunet import DGUNet
from b2g.methods.dip import DIP
from b2g.methods.hqssl import HQSSL
from b2g.methods.iddp import IDDP
from b2g.methods.lg_bpn import LGBPN, LGBPNMany
from b2g.methods.lichi import LIChI
from b2g.methods.mash import MASH
from b2g.methods.mpi import MPI, MPIScratch
from b2g.methods.neighbor2neighbor import Neighbor2Neighbor, Neighbor2NeighborMany
from b2g.methods.nl_ridge import NLRidge
from b2g.methods.nlr import NLR
from b2g.methods.nlm import NonLocalMeans
from b2g.methods.noise2fast import Noise2Fast
from b2g.methods.noise2noise import Noise2Noise
from b2g.methods.noise2same import Noise2Same
from b2g.methods.noise2self import Noise2Self
from b2g.methods.noise2void import Noise2Void
from b2g.methods.noisier2noise import Noisier2Noise
from b2g.methods.noisy_as_clean import NoisyAsClean
from b2g.methods.pixel2pixel import Pixel2Pixel
from b2g.methods.pnp import PlugAndPlay
from b2g.methods.self2self import Self2Self
from b2g.methods.tv import TotalVariation
from b2g.methods.wavelet import WaveletShrinkage
from b2g.methods.zs_n2n import ZSN2N

_ALL = (
    B2G,
    Consensus,
    Self2Self,
    ZSN2N,
    BM3D,
    NLRidge,
    LIChI,
    Noise2Self,
    Noise2Void,
    Noise2Same,
    Noise2Fast,
    Neighbor2Neighbor,
    Neighbor2NeighborMany,
    Blind2Unblind,
    Blind2UnblindMany,
    Noise2Noise,
    APBSN,
    APBSNMany,
    LGBPN,
    LGBPNMany,
    HQSSL,
    DGUNet,
    MPI,
    MPIScratch,
    DIP,
    MASH,
    Pixel2Pixel,
    NLR,
    NoisyAsClean,
    Noisier2Noise,
    IDDP,
    PlugAndPlay,
    NonLocalMeans,
    WaveletShrinkage,
    TotalVariation,
)

METHODS = {method.name: method for method in _ALL}

__all__ = [
    "APBSN",
    "APBSNMany",
    "B2G",
    "BM3D",
    "Blind2Unblind",
    "Blind2UnblindMany",
    "Consensus",
    "DGUNet",
    "DIP",
    "HQSSL",
    "IDDP",
    "LGBPN",
    "LGBPNMany",
    "LIChI",
    "MASH",
    "METHODS",
    "MPI",
    "MPIScratch",
    "NLR",
    "NLRidge",
    "Neighbor2Neighbor",
    "Neighbor2NeighborMany",
    "Noise2Fast",
    "Noise2Noise",
    "Noise2Same",
    "Noise2Self",
    "Noise2Void",
    "Noisier2Noise",
    "NoisyAsClean",
    "Pixel2Pixel",
    "NonLocalMeans",
    "PlugAndPlay",
    "Self2Self",
    "TotalVariation",
    "WaveletShrinkage",
    "ZSN2N",
]
