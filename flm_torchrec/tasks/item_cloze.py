"""Item cloze: a hidden event of a history is found among the items, by all other events."""

import torch
from torch import Tensor, nn

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views
from flm_torchrec.tasks.balance import Gather, no_gather
from flm_torchrec.tasks.contrast import softmax_loss
from flm_torchrec.tasks.ranking import is_ruled_out


class ItemCloze(nn.Module):
    """Softmax over the hidden event's item and the batch's N negatives (BERT4Rec, Sun et al.,
    2019), the mean over the hidden events of all ranks, whose numbers `gather` brings together.

    Masked are the unknown item, the hidden one among the negatives and, if `mask_seen`, what the
    user met at any other time.
    """

    def __init__(self, *, mask_seen: bool, gather: Gather = no_gather) -> None:
        super().__init__()
        self.mask_seen = mask_seen
        self.gather = gather

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        users, items = batch.users, batch.items
        assert users is not None
        assert items is not None
        assert views.users is not None
        assert views.users.hidden is not None
        assert views.items is not None
        num_users, num_hidden = users.hidden.shape
        num_negatives, window = items.log_q.shape[0], users.history.shape[1]
        state = views.users.hidden.flatten(0, 1)  # (U H, D)
        is_hidden = (users.hidden >= 0).flatten()
        item = users.history.gather(1, users.hidden.clamp(min=0)).flatten()
        positive = (state * views.items.row[item]).sum(1)
        negatives = state @ views.items.row[-num_negatives:].T - items.log_q
        user = torch.arange(num_users, device=item.device).repeat_interleave(num_hidden)
        end = torch.full_like(item, window)
        is_masked = is_ruled_out(batch, user, item, end, mask_seen=self.mask_seen)
        loss = softmax_loss(positive, negatives, is_masked)
        count = self.gather(is_hidden.sum()[None]).to(loss.dtype).mean()  # of a rank
        return (loss * is_hidden).sum() / count.clamp(min=1e-12)
