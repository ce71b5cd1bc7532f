"""Keys and values in memory reserved once: each step writes one position, where Transformers' own cache copies all."""

import torch
from transformers.cache_utils import DynamicLayer

Tensor = torch.Tensor


class Reserved(DynamicLayer):
    """One layer's keys and values, `[B, H, length, D]`, of which the first `used` positions are filled."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length, self.used = length, 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write what is new; returns all that is filled."""
        begin, end = self.used, self.used + key_states.shape[2]
        if self._keys is None or self._values is None:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self._keys, self._values = (
                x.new_empty((*x.shape[:2], self.length, x.shape[3])) for x in (key_states, value_states)
            )
        self._keys[:, :, begin:end], self._values[:, :, begin:end] = key_states, value_states
        self.used = end
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """How many positions are filled."""
        return self.used

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times."""
        self._map(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """These rows only."""
        self._map(lambda x: x[indices])

    def _map(self, change) -> None:
        if self._keys is not None and self._values is not None:
            self._keys, self._values = change(self._keys), change(self._values)
