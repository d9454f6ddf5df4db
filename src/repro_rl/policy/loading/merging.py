"""Adding an adapter to the weights under it, so that the sum is the model that was adapted.

peft adds in place. A weight that two layers share (``tie_word_embeddings``) would then change in both, though
the adapter is on one of them. Importing this module loads neither torch nor peft.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

from repro_rl.errors import CheckpointError, DeviceMemoryError
from repro_rl.policy.loading.hub import reason_of
from repro_rl.policy.model.memory import LOADING, memory_explained

TIED = "tie_word_embeddings"  # in configurations: input and output embeddings are one weight
ParameterOrder = dict[str, list[str]]  # module name -> its own parameters, in the order of the model's code


def merge(model: Any, name: object) -> Any:
    """The model of transformers under the adapter of ``model``, which is added to its weights in place.

    Weights that layers shared are shared still if they are equal. Otherwise the output embeddings become a
    weight of their own, and the configuration says so. ``name`` is what messages call the adapter.

    Raises CheckpointError for an adapter that is no change of weights.
    """
    order: ParameterOrder = getattr(model, "parameter_order", {})  # of an adapter that lora.py put there
    base = model.get_base_model()
    tied = [(config, getattr(config, TIED, None)) for config in (base.config, base.config.get_text_config())]
    _separate(base)
    try:
        with (
            memory_explained(f"adding the adapter in {name} to its model", LOADING),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", "(?s).*tie_word_embeddings", UserWarning)  # _settle sees to it
            whole = model.merge_and_unload()
    except DeviceMemoryError:
        raise
    except Exception as error:  # peft raises several
        raise CheckpointError(
            f"The adapter in {name} cannot be added to the weights of its model: {reason_of(error)} It can "
            "be evaluated as it is. To train on it, or to get an ordinary model folder, train an adapter "
            "without that setting."
        ) from error
    for config, value in tied:  # peft has changed it, if the layers are separate for the moment
        if value is not None:
            setattr(config, TIED, value)
    _settle(whole, name)
    restore_order(whole, order)
    return whole.eval()


def merged(model: Any, name: object) -> Any:
    """A float32 copy on the CPU with the adapter added to the weights, see ``merge``."""
    return merge(copy.deepcopy(model).to("cpu").float(), name)


def is_tied(config: Any) -> bool:
    """Whether the input and output embeddings of a model with this configuration are one weight."""
    return bool(getattr(config.get_text_config(), TIED, False))


def shared_weights(model: Any) -> list[str]:
    """Names of weights under an adapter that layers share, all names of each such weight."""
    adapted = _adapted_weights(model)
    names: dict[int, list[str]] = {}
    for path, module in model.named_modules():  # a layer that is there twice is one: it changes as a whole
        for name, weight in module._parameters.items():
            if id(weight) in adapted:
                names.setdefault(id(weight), []).append(f"{path}.{name}".replace(".base_layer", ""))
    return [name for group in names.values() if len(group) > 1 for name in group]


def parameter_order(model: Any) -> ParameterOrder:
    """The order of every module's own parameters.

    peft's layers for single parameters (experts) register them again in each forward pass, behind the others.
    The names of an adapter's tensors, and the optimizer's state, follow this order.
    """
    return {
        name: list(module._parameters)
        for name, module in model.named_modules()
        if len(module._parameters) > 1
    }


def restore_order(model: Any, order: ParameterOrder) -> None:
    """Put every module's own parameters into ``order`` again."""
    for name, module in model.named_modules():
        wanted = order.get(name, [])
        for parameter in wanted if list(module._parameters) != wanted else ():
            if parameter in module._parameters:
                module._parameters[parameter] = module._parameters.pop(parameter)


def _adapted_weights(model: Any) -> set[int]:
    """Identities of the weights of ``model`` that lie in layers with an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    return {id(weight) for layer in layers for weight in layer.parameters()}


def _separate(model: Any) -> None:
    """Give every layer a weight of its own where one of those that share it has an adapter."""
    import torch

    adapted, seen = _adapted_weights(model), set[int]()
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is None or id(weight) not in adapted:
                continue
            if id(weight) in seen:
                clone = torch.nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
                module._parameters[name] = clone
            seen.add(id(weight))


def _settle(model: Any, name: object) -> None:
    """Share again what the configuration says is shared, where it is equal; else say that it is not."""
    import torch

    head = model.get_output_embeddings()
    for target, source in list(model.all_tied_weights_keys.items()):
        weight, other = model.get_parameter(target), model.get_parameter(source)
        if weight is other:
            continue
        path, _, key = target.rpartition(".")
        owner = model.get_submodule(path)
        if torch.equal(weight, other):
            owner._parameters[key] = other
        elif owner is head:
            for config in (model.config, model.config.get_text_config()):
                setattr(config, TIED, False)
            del model.all_tied_weights_keys[target]
        else:
            raise CheckpointError(
                f"The adapter in {name} cannot be added to the weights of its model: it changes {target} and "
                f"{source} differently, which are one weight in {model.config.model_type}. It can be "
                "evaluated as it is. To train on it, train an adapter on other layers."
            )
