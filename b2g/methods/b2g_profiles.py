"""The profiles of :class:`b2g.methods.B2G`: named settings, each with its reason."""

# To the letter, wherever the letter can be followed at all.
PAPER = dict(
    steps=6000,  # "6000 are already comparable" (Figure 7a); a total is not stated
    learning_rate=2e-5,  # Section 5, synthetic noise
    decay="constant",
    width=48,  # not stated: Self2Self's, which the text builds on
    head=(64, 32),
    norm="decoder",  # Section 3.2 lists batch normalisation in the decoder
    attention_between="none",  # Eq. 3.12 multiplies the two matrices
    mask="distance",  # Eq. 3.1 to 3.3
    detail_masked=0.0,  # detail "retained": never masked
    pilot="visible",  # x_m = f(y), Eq. 3.10
    dual_from=1,  # "x_1 after the first network cycle"
    refresh=1,  # the mask is "continuously updated"
    visible="attached",  # Eq. 3.4 says nothing of a stopped gradient
    combine="sum",  # one scalar per pixel, as Eq. 3.6 squares
    answer="passes",
)
# Every part of the paper present and on, each in the reading that does least harm.
FAITHFUL = dict(
    steps=1000,
    learning_rate=4e-3,  # batch normalisation bears it; at 2e-5 a thousand steps hardly move
    decay="constant",
    mask="gradient",  # marks edges, as the text wants; Eq. 3.1's distance marks noise outliers
    detail_masked=0.125,  # "diminished" by half: what is never masked is never learnt
    pilot="visible",
    dual_from=100,  # the first estimates say nothing of detail
    refresh=20,
    visible="detached",  # attached, the loss rewards noise in f(y)
    combine="component",
    answer="average",
)
# The paper's way with real noise, in our reading: its architecture is in a supplement that is not public. No more than
# a reading, and no recommendation: see the row of the chapter on all methods.
REAL = FAITHFUL | dict(
    omega=0.5,  # Section 5, real noise
    gamma=0.5,  # Section 5, real noise
    learning_rate=2e-3,  # half of that for synthetic noise, as the paper's 1e-5 is half of its 2e-5
    dilation=2,  # "dilated convolution": the least that leaves the nearest neighbours out
    shuffle=1,  # not in the paper
)
# The network and the loop without the two parts that were not seen to help;
# independent noise of any kind will do.
MASKED = dict(steps=1000, learning_rate=4e-3, mask="bernoulli", visible="none", answer="average")
# Beyond the paper: recorruption in the place of masks, and a patch-based denoiser's answer to mend. The
# settings were chosen on pictures that no table reports; the chapter on quality shows what they are worth.
FAST = dict(
    steps=300,  # most of what the mending gains is gained by then
    learning_rate=2e-3,
    input="recorrupted",  # of a mask's hidden pixel nothing is seen; here every pixel is, with more noise
    patches="nl_ridge",  # a start that a small network needs thousands of steps to reach
    draws=0,  # by the picture's size: with few, their own noise is learnt by heart
    hold=0.1,  # tells how much of the mending to trust: on small pictures not all
    side=192,  # a step costs the same whatever the picture's size
    standout="none",  # T-Standout lets the network learn the noise of the draws by heart
    dropout="half",  # plain dropout at half resolution does not
    output="linear",  # a change of either sign
    weights=0.99,
    answer="visible",  # y itself, with no noise added, holds more than a recorruption
    passes=8,
    average=0.96,  # of the history's pictures; answers at a pixel, not steps
)
# For a GPU or for patience: more and wider of everything. LIChI as the pilot would be no gain: its errors are
# already those of a network that mends, held pixels then trust nothing of the change, and the answer is
# LIChI's own.
BEST = FAST | dict(
    steps=1500, side=256, width=48, head=(48, 24), learning_rate=1e-3, weights=0.995, passes=16
)
# For a camera's pictures. Held pixels would show their noise to the neighbours they share it with, so none are held.
CAMERA = FAST | dict(noise="correlated", hold=0.0)
# For tests and a first look.
SMOKE = MASKED | dict(steps=60, width=8, head=(8, 8), learning_rate=8e-3, average=0.9)
