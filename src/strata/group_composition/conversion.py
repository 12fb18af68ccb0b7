"""What a configuration of the original group-agf programs means in the settings of this family.

Conventions: settings are plain blocks, as they stand in an experiment; a note is a sentence about
what differs. Imports neither torch nor numpy.

- One seed drove everything in the original; n seeds trained n networks on n templates. Here one
  template and one stream of sequences are shared by n initial weights.
- Offline, an epoch is a pass through all sequences, and parameters are saved every so many epochs.

Source: group-agf, commits 0dc2f6d to 66e2529.
"""

from strata.group_composition.original_config import OriginalConfig
from strata.group_composition.original_templates import (
    Block,
    group_block,
    order_of,
    template_block,
)

MODELS = ("QuadraticRNN", "SequentialMLP", "TwoLayerNet")
OPTIMIZERS = ("auto", "adam", "per_neuron", "hybrid")
REPLACED_RATE = 1e-3
"""Learning rate that the original took for 1 when it trained a SequentialMLP per neuron."""


def converted(original: OriginalConfig, n_seeds: int) -> Block:
    """Return the settings of an experiment; `original.notes` gains what there is to say.

    Raises:
        UserError: a value that the original would not have taken either.
    """
    group = group_block(original)
    model = _model(original)
    every = _every_output(original, model)
    return {
        "group": group,
        "template": template_block(original, group),
        "task": {"k": original.whole("data.k"), "outputs": "every" if every else "last"},
        "data": _data(original, model),
        "model": model,
        "training": _training(original, group, model),
        "seeds": _seeds(original, n_seeds),
    }


# --- the network and its data ---------------------------------------------------------------------


def _model(original: OriginalConfig) -> Block:
    kind = original.choice("model.model_type", MODELS)
    model: Block = {
        "kind": kind,
        "hidden_dim": original.whole("model.hidden_dim"),
        "init_scale": original.number("model.init_scale"),
    }
    if kind == "QuadraticRNN":
        model["transform"] = original.value("model.transform_type")
    if kind == "TwoLayerNet":
        model["nonlinearity"] = original.value("model.nonlinearity")
        model["output_scale"] = original.number("model.output_scale")
    return model


def _every_output(original: OriginalConfig, model: Block) -> bool:
    asked = original.flag("model.return_all_outputs")
    if asked and model["kind"] != "QuadraticRNN":
        original.notes.append(
            f"model.return_all_outputs is false for {model['kind']}, which has one output only; "
            "the original stopped with an error"
        )
        return False
    return asked


def _data(original: OriginalConfig, model: Block) -> Block:
    online = original.choice("training.mode", ("online", "offline")) == "online"
    batch_size = original.whole("data.batch_size")
    if online:
        return {"mode": "online", "batch_size": batch_size}
    if model["kind"] == "TwoLayerNet":
        original.notes.append(
            "TwoLayerNet learns all pairs of elements; the original set the last tenth of the "
            "table aside (and took only data.dataset_fraction of it, where given)"
        )
        original.value("data.dataset_fraction")
        return {"mode": "exhaustive", "batch_size": batch_size}
    mode = original.choice("data.mode", ("sampled", "exhaustive"))
    samples = {"num_samples": original.whole("data.num_samples")} if mode == "sampled" else {}
    return {"mode": mode, "batch_size": batch_size, **samples}


def _seeds(original: OriginalConfig, n_seeds: int) -> Block:
    seed = original.whole("data.seed")
    if n_seeds > 1:
        original.notes.append(
            f"{n_seeds} networks with initial weights of their own learn one template from the "
            f"same sequences (seed {seed}); in the original each of its seeds 0 to {n_seeds - 1} "
            "also changed the template and the sequences"
        )
    return {"template": seed, "init": seed, "data": seed, "n_init": n_seeds}


# --- training -------------------------------------------------------------------------------------


def _training(original: OriginalConfig, group: Block, model: Block) -> Block:
    optimizer = _optimizer(original, model)
    training: Block = {}
    steps_per_epoch = 1
    if original.value("training.mode") == "online":
        training["steps"] = original.whole("training.num_steps")
    else:
        steps_per_epoch = _steps_per_epoch(original, group, model)
        training["steps"] = original.whole("training.epochs") * steps_per_epoch
    training |= {"optimizer": optimizer, "lr": _rate(original, model, optimizer)}
    decided = optimizer
    if optimizer == "auto":
        decided = "per_neuron" if model["kind"] == "SequentialMLP" else "adam"
    training |= _parts(original, model, decided)
    interval = original.value("training.save_param_interval")
    if interval is not None:
        interval = original.whole("training.save_param_interval") * steps_per_epoch
    training["snapshot_every"] = interval
    threshold = original.value("training.reduction_threshold")
    if threshold is not None:
        training["reduction_threshold"] = original.number("training.reduction_threshold")
    return training


def _steps_per_epoch(original: OriginalConfig, group: Block, model: Block) -> int:
    n_sequences = order_of(group, original.context) ** original.whole("data.k")
    if model["kind"] != "TwoLayerNet" and original.value("data.mode") == "sampled":
        n_sequences = original.whole("data.num_samples")
    batch_size = original.whole("data.batch_size")
    if batch_size < 1:
        raise original.mistake("data.batch_size", "expected a number from 1 on", batch_size)
    return -(-n_sequences // batch_size)


def _optimizer(original: OriginalConfig, model: Block) -> str:
    optimizer = original.choice("training.optimizer", OPTIMIZERS)
    if optimizer == "hybrid" and model["kind"] != "QuadraticRNN":
        raise original.mistake(
            "training.optimizer", f"expected another one for {model['kind']}", "hybrid"
        )
    if optimizer == "auto" and model["kind"] == "TwoLayerNet":
        original.notes.append("training.optimizer auto became adam, as the original decided")
        return "adam"
    return optimizer


def _rate(original: OriginalConfig, model: Block, optimizer: str) -> float:
    rate = original.number("training.learning_rate")
    is_per_neuron = model["kind"] == "SequentialMLP" and optimizer in ("auto", "per_neuron")
    if is_per_neuron and rate == REPLACED_RATE:
        original.notes.append(
            "training.learning_rate 0.001 became 1: the original took it for 1 when it trained a "
            "SequentialMLP per neuron"
        )
        return 1.0
    return rate


def _parts(original: OriginalConfig, model: Block, optimizer: str) -> Block:
    """Return what is particular to an optimizer."""
    clip_norm = original.value("training.grad_clip")
    if clip_norm is not None:
        clip_norm = original.number("training.grad_clip")
    if optimizer == "adam":
        return {
            "betas": original.numbers("training.betas"),
            "weight_decay": original.number("training.weight_decay"),
            "clip_norm": clip_norm,
        }
    if clip_norm is not None:
        original.notes.append(
            f"training.grad_clip {clip_norm:g} became null for the optimizer {optimizer}: the "
            "original clipped gradients before it scaled them per neuron, and here clip_norm "
            "limits the scaled ones"
        )
    if optimizer == "hybrid":
        return {
            "neuron_lr": 1.0,
            "scaling_exponent": original.number("training.scaling_factor"),
            "betas": original.numbers("training.betas"),
            "clip_norm": None,
        }
    return {"degree": _degree(original, model), "clip_norm": None}


def _degree(original: OriginalConfig, model: Block) -> int | None:
    if original.value("training.degree") is None:
        return None
    degree = original.whole("training.degree")
    if model["kind"] != "TwoLayerNet":
        return degree
    original.notes.append(
        f"training.degree {degree} became {degree + 1}: for TwoLayerNet the original scaled by the "
        "norm to the power 1 - degree"
    )
    return degree + 1
