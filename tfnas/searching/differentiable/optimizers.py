"""A search's optimizers, without PyTorch's compiler.

Some of an optimizer's methods import that compiler when they are first called (two seconds and 0.12 GB), only to have
themselves left uncompiled. Nothing here compiles an optimizer, so what they wrap is called as it is.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from tfnas.supernet.elastic import ActiveSlice, cpu_kernels

Update = tuple[Tensor, ActiveSlice | None]
"""A parameter with a gradient, and what of it is active (None: all)."""


class _Uncompiled(torch.optim.Optimizer):
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class Adam(_Uncompiled, torch.optim.Adam):
    """As `torch.optim.Adam`."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class ElasticSGD(_Uncompiled):
    """SGD with momentum and weight decay on the entries in use; the others keep value and momentum bit for bit.

    Inactive channels and operations that were not sampled take no part in a step. Plain SGD on maximum-width tensors
    would move inactive channels by momentum and weight decay alone. Momentum lives at maximum width, so it survives
    every change of width. `active_slices` tells at each step what is used in part.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        active_slices: Callable[[], Mapping[Tensor, ActiveSlice]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.active_slices = active_slices
        self._masks: dict[Tensor, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: gradients are there when it is called
        """Update every parameter that has a gradient, within its active slice."""
        slices = self.active_slices()
        for group in self.param_groups:
            updates = [(one, slices.get(one)) for one in group["params"] if one.grad is not None]
            for parameter, _ in updates:  # here: what is allocated by threads of the pool stays in their arenas
                if "momentum_buffer" not in self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            for some in _without_shared_memory(updates):
                kernels = cpu_kernels(some[0][0].device)
                if kernels is None:
                    self._update_foreach(some, group)
                else:
                    threads = torch.get_num_threads()
                    shares = [some[start::threads] for start in range(threads)]
                    kernels.parallel_map(partial(self._update_each, group=group), shares)

    def _update_each(self, updates: Sequence[Update], group: Mapping[str, float]) -> None:
        for parameter, active in updates:
            self._update(parameter, active, group)

    def _update_foreach(self, updates: Sequence[Update], group: Mapping[str, float]) -> None:
        """Each operator for many parameters: a GPU takes longer to start one than to compute it."""
        for whole in (True, False):
            some = [(parameter, active) for parameter, active in updates if (active is None) == whole]
            if not some:
                continue
            parameters = [parameter for parameter, _ in some]
            momenta = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
            changes = torch._foreach_mul(momenta, group["momentum"] - 1)
            torch._foreach_add_(changes, [one.grad for one in parameters if one.grad is not None])
            torch._foreach_add_(changes, parameters, alpha=group["weight_decay"])
            if whole:
                torch._foreach_add_(momenta, changes)
                torch._foreach_add_(parameters, momenta, alpha=-group["lr"])
            else:  # changing the other entries by nothing is less work than fetching those in use
                in_use = [self._mask(parameter, active) for parameter, active in some if active is not None]
                torch._foreach_addcmul_(momenta, changes, in_use)
                torch._foreach_addcmul_(parameters, momenta, in_use, value=-group["lr"])

    def _mask(self, parameter: Tensor, active: ActiveSlice) -> Tensor:
        """Ones where entries are in use, else zeros; made anew when others are."""
        known = self._masks.get(parameter)
        if known is None or known[0] is not active.indices:
            mask = torch.zeros_like(parameter).index_fill_(active.dim, active.indices, 1)
            known = self._masks[parameter] = active.indices, mask
        return known[1]

    def _update(self, parameter: Tensor, active: ActiveSlice | None, group: Mapping[str, float]) -> None:
        assert parameter.grad is not None
        momentum = self.state[parameter]["momentum_buffer"]
        if active is None:
            momentum.mul_(group["momentum"]).add_(parameter.grad).add_(parameter, alpha=group["weight_decay"])
            parameter.add_(momentum, alpha=-group["lr"])
            return
        # Where most entries are in use, changing the others by nothing is four times as fast as fetching those in use
        in_use = parameter.new_zeros(parameter.shape[active.dim]).index_fill_(0, active.indices, 1)
        factors = torch.ones_like(in_use).index_fill_(0, active.indices, group["momentum"])
        in_use, factors = (_along(values, parameter, active.dim) for values in (in_use, factors))
        momentum.mul_(factors).addcmul_(parameter.grad, in_use).addcmul_(parameter, in_use, value=group["weight_decay"])
        parameter.addcmul_(momentum, in_use, value=-group["lr"])


def _without_shared_memory(updates: Sequence[Update]) -> list[list[Update]]:
    """The same in their order, in lists of which none has two parameters in one memory.

    Operations that share weights are such. What is updated at the same time must not be the same.
    """
    lists: list[list[Update]] = []
    users: Counter[int] = Counter()
    for one in updates:
        memory = one[0].untyped_storage().data_ptr() or id(one[0])  # tensors without numbers have none
        if users[memory] == len(lists):
            lists.append([])
        lists[users[memory]].append(one)
        users[memory] += 1
    return lists


def _along(values: Tensor, parameter: Tensor, dim: int) -> Tensor:
    """One value for each index of a dimension, to be multiplied with the whole parameter."""
    return values.view([-1 if place == dim else 1 for place in range(parameter.dim())])
