"""The sparse engine: stacks of linear layers with ReLU on one CPU core, at a cost that follows the density.

Dense matrix products cost the same at any density. Here each surviving weight is work, and nothing else is. An
iteration takes its batch in blocks of 64 images, because 64 floats are what the registers hold well: 4 of AVX-512's.

The three modes. A layer is kept in CSR (compressed sparse rows), or in tiles of 64 outputs while it is still so dense
that multiplying zeros too is faster (`layout.TILES_ABOVE`):

    mode      first layer      second layer     others     when
    SPARSE    CSR              CSR              CSR        first layer below 30 %
    MIXED     tiles            CSR              CSR        first above, second below 45 %
    DENSE     tiles            tiles            CSR        both above

One block in CSR. A has a row for each pixel and unit, with its values in 64 images; D, of the same shape, the deltas:

                                       image 0   1   2  ...  63
    pixels with weights    row 0          [  .   .   .        . ]  <- images.fill_rows
                           ...            [                     ]
    spare row              offset - 1     [                     ]     all other pixels: no weight reads it
    first layer            offset         [                     ]  <- csr.forward, unit after unit
                           offset + 1     [                     ]
                           ...
    outputs                               [                     ]  -> loss.softmax

                                                         indptr[u + 1] - 1
    unit u:  A[offset + u, 0..63]  =  ReLU( bias[u]  +        sum          w[k] * A[indices[k], 0..63] )
                                                         k = indptr[u]

One tile. 64 outputs lie side by side, and images are taken one by one; an input that is 0 in an image is skipped: four
fifths of MNIST's pixels are background, and ReLU makes half of the hidden units 0:

    image j, tile t:  z[j, t, 0..63]  =  ReLU( bias[t, 0..63]  +  sum  x[j, i] * w[t, i, 0..63] )
                                                              i not 0 in image j

So a first layer at 21 %, with a second at 21 %, runs forward like this:

    training.train            `layout.mode` says SPARSE, `layout.build_net` writes indptr, indices, w
      modes.train             compiled; for each iteration: `images.fill_batch` sorts the images' bytes by pixel, then
        modes.sparse_batch    for each block of 64 images:
          images.fill_rows    writes the pixels' rows of A
          csr.forward         for each unit: 64 sums in registers, for each of its weights `fma` with a row, ReLU, store
    and goes on with `loss.softmax`, `csr.backward` (the same in CSR of the transposed matrix: indptr_t, indices_t, and
    perm, which says where a weight is in w), `csr.gradients` and `step.take_steps`.

The files, each importing from those above it alone:

    doors         numba's private doors: vectors, pointers, the compiled cache
    vectors       how wide vectors are, and each operation on them in NumPy
    simd          the same operations in LLVM
    step          one step of Adam or SGD
    layout        CSR, tiles; which mode; from dense arrays and back
    order         which images are alike
    images        images as lists of pixels, and as bytes
    csr tiles     kernels of layers in CSR, and in tiles
    loss          softmax, cross-entropy
    modes         the kernel that trains, mode by mode
    evaluation    loss and accuracy over many images
    training      the loop around the kernels
    sell          prediction: SELL slices, and their kernel
    predictor     prediction: the class that users call

numba is imported when the first level is trained.
"""

from lottery.data import Splits
from lottery.engines import NEVER, Checkpoint, Report, Trained
from lottery.models import Network
from lottery.spec import Recipe
from lottery.starts import Start


def train(
    network: Network,
    data: Splits,
    start: Start,
    recipe: Recipe,
    report: Report,
    keep: int = 0,
    checkpoint: Checkpoint = NEVER,
) -> Trained:
    """Trains `start` on data.train, on one thread; see `lottery.engines.Train`."""
    from lottery.engines.sparse import training

    return training.train(network, data, start, recipe, report, keep, checkpoint)


def refuses(network: Network, recipe: Recipe, device: str) -> str:
    """Why it can't train that network with that recipe on that device; "" if it can."""
    if device != "cpu":
        return f"it runs on a CPU, not on {device}; use --device cpu, or --engine torch"
    if not network.linear:
        return "it trains stacks of linear layers alone; use --engine torch"
    if recipe.optimizer == "adamw" or recipe.nesterov:
        return "it knows Adam, SGD and SGD with momentum alone; use --engine torch"
    if recipe.weight_decay and not recipe.decay_biases:
        return "it decays weights and biases alike; use recipe.decay_biases, or --engine torch"
    if recipe.crop_padding or recipe.flip:
        return "it trains on images as they are, without recipe.crop_padding and recipe.flip; use --engine torch"
    return ""


def slow_start() -> str:
    """What keeps the first iteration waiting: compiling the kernels where this was never done, or cannot be kept."""
    from lottery.engines.sparse import training

    if not training.must_compile():
        return ""
    if training.cached():
        return "compiling the kernels, this once: half a minute"
    return "compiling the kernels, half a minute each time: to keep them, set NUMBA_CACHE_DIR to a folder for them"
