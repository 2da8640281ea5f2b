"""One training from its first epoch, or from where it stopped, to its best weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from chexray.errors import ResourceError, RunFailed
from chexray.text import first_line
from chexray.utility import stored
from chexray.utility.checkpointing import CHECKPOINT, Folder
from chexray.utility.epoch import Held, Optimisation, train_epoch
from chexray.utility.fit import Fit, Phase, Sample
from chexray.utility.losses import Loss, balanced_pos_weight, loss_function
from chexray.utility.network import Network
from chexray.utility.scoring import Read, own_slice, selection, validate
from chexray.utility.stream import Stream, phase_epochs
from chexray.utility.world import World

if TYPE_CHECKING:
    from torch import nn

    from chexray.encoders.weights import ResolvedWeights


@dataclass
class Training:
    """The training of one fit, the same on every worker; worker 0 commits each epoch.

    history: a row an epoch, counted from 1 over all phases. best: {"epoch", "value", "auroc"} of the best epoch of the
    last phase so far, the earlier of equals; value is higher for better, whatever it is chosen by. kept: its weights,
    on worker 0, on the CPU.
    """

    fit: Fit
    folder: Folder
    read: Read
    world: World
    say: Callable[[str], None]
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    kept: dict[str, Any] | None = None

    def run(self, device: str, weights: ResolvedWeights | None) -> Network | None:
        """The network with its best weights; as built when the recipe has no epochs. None as soon as another run is
        seen to have committed the fit."""
        import torch

        recipe = self.fit.recipe
        state = self._stored()
        network = Network.of(self.fit, None if state else weights, device, self.folder.storage)
        if state:
            self.folder.fill(network.model, state["model"], CHECKPOINT)
            network.mean, network.std = tuple(state["mean"]), tuple(state["std"])
            if self.world.leads:  # a crash may have come between the state and its history
                self.folder.save_history(self.history)
            self.say(f"{self.fit.title}: goes on after epoch {len(self.history)}")
        elif self.world.leads:
            self.folder.describe()
        counts = phase_epochs(recipe.epochs, [phase.share for phase in self.fit.phases])
        if len(self.history) < sum(counts) and not self._ended():
            module = network.model
            if self.world.size > 1:
                module = torch.nn.parallel.DistributedDataParallel(
                    network.model,
                    device_ids=[network.device] if network.device.type == "cuda" else None,
                    broadcast_buffers=False,  # worker 0's are copied before each validation instead
                )
            validation = self._hold(self.fit.validation, own_slice(len(self.fit.validation), self.world))
            for number, phase in enumerate(self.fit.phases):
                first = sum(counts[:number])
                epochs = range(first, first + counts[number])
                if len(self.history) < epochs.stop and not self._phase(
                    number, phase, epochs, network, module, validation, state
                ):
                    return None
        if self.best is not None:
            self.folder.fill(network.model, self.world.of_leader(self.kept) or {}, CHECKPOINT)
        return network

    def _stored(self) -> dict[str, Any] | None:
        """The state of the last committed epoch, if there is one; sets history, best and kept."""
        found = self.folder.load_state() if self.world.leads else None
        best = found.pop("best") if found else None
        if best:
            self.kept = best["model"]
            best = {key: best[key] for key in ("epoch", "value", "auroc")}
        state, self.best = self.world.of_leader((found, best))
        self.history = list(state["history"]) if state else []
        return state

    def _hold(self, sample: Sample, which: slice | np.ndarray) -> Held:
        """These images of a sample in memory."""
        side = self.fit.recipe.image_size
        own = sample.take(np.arange(len(sample))[which])
        images = self.read(own.keys) if len(own) else np.empty((0, side, side), np.uint8)
        return Held(own.ids, images, np.ascontiguousarray(own.labels, np.int8))

    def _phase(
        self,
        number: int,
        phase: Phase,
        epochs: range,
        network: Network,
        module: nn.Module,
        validation: Held,
        state: dict[str, Any] | None,
    ) -> bool:
        """The epochs of one phase that are still to do, each committed. epochs: their numbers in the fit, from 0.

        False as soon as another run has committed the fit: nothing more of this one is written.
        """
        recipe, world = self.fit.recipe, self.world
        per_epoch = self.fit.n_budget if recipe.budget == "images" else len(phase.sample)
        if min(per_epoch, len(phase.sample)) < world.size:
            raise ResourceError(
                f"{self.fit.title}: {len(phase.sample)} images to train on, {per_epoch} an epoch, for {world.size} "
                "workers. Lower utility.workers, or train on more images."
            )
        stream = Stream(len(phase.sample), per_epoch, recipe.batch_size, self.fit.seed, number, world.rank, world.size)
        held = self._hold(phase.sample, stream.share)
        loss_of = self._loss(phase.sample, network)
        optimisation = Optimisation(recipe, network, stream.steps * len(epochs))
        if state and state["phase"] == number:
            try:
                stored.optimisation(state["optimisation"], optimisation.state(), optimisation.parameters)
                optimisation.restore(state["optimisation"])
            except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
                why = f"its optimiser does not fit ({first_line(error)})"
                raise self.folder.refusal(CHECKPOINT, why) from error
        in_last = number == len(self.fit.phases) - 1
        for epoch in epochs[len(self.history) - epochs.start :]:
            if self._ended():
                return True
            start = time.perf_counter()
            where = f"epoch {epoch + 1} of {self.fit.title}"
            row: dict[str, Any] = {"phase": number, "epoch": epoch + 1, "workers": world.size, "images": per_epoch}
            row |= train_epoch(
                network, module, optimisation, loss_of, held, stream, epoch - epochs.start, recipe.augment, world, where
            )
            world.copy_buffers(network.model)
            scores = validate(network, validation.images, self.fit.validation.labels, loss_of, world)
            if not scores.pop("finite"):
                raise RunFailed(
                    f"predictions are not finite after {where}. Lower utility.learning_rate, set precision: fp32 or a "
                    "grad_clip such as 1.0; epochs committed before are kept."
                )
            row |= scores
            optimisation.end_epoch(row["loss"] if row["val_loss"] is None else row["val_loss"])
            better = in_last and self._judge(row)
            row |= {key: row.get(key) for key in ("best_epoch", "best_auroc", "best_by")}
            row["seconds"] = world.of_leader(time.perf_counter() - start)
            self.history.append(row)
            if world.of_leader(self.folder.is_committed if world.leads else False):
                return False
            if world.leads:
                self._commit(number, network, optimisation, better)
            self.say(_line(self.fit.title, row, recipe.epochs))
        return True

    def _loss(self, sample: Sample, network: Network) -> Loss:
        """The loss of the recipe, for training and for validation, weighted by the labels of the whole phase."""
        import torch

        weight = None
        if self.fit.recipe.pos_weight == "balanced":
            weight = balanced_pos_weight(torch.from_numpy(sample.labels)).to(network.device)
        return loss_function(self.fit.recipe.loss, weight)

    def _judge(self, row: dict[str, Any]) -> bool:
        """True when this epoch is the best so far; notes in its row which one is."""
        by = selection(self.fit.validation.labels, self.fit.recipe.select)
        value = {"auroc": row["val_auroc"], "loss": -(row["val_loss"] or 0.0), "last": float(row["epoch"])}[by]
        better = self.best is None or value > self.best["value"]
        if better:
            self.best = {"epoch": row["epoch"], "value": value, "auroc": row["val_auroc"]}
        assert self.best is not None
        row |= {"best_epoch": self.best["epoch"], "best_auroc": self.best["auroc"], "best_by": by}
        return better

    def _ended(self) -> bool:
        """True when the recipe's patience is over."""
        patience = self.fit.recipe.patience
        return bool(patience and self.best and len(self.history) - self.best["epoch"] >= patience)

    def _commit(self, phase: int, network: Network, optimisation: Optimisation, better: bool) -> None:
        weights = network.model.state_dict()
        if better:
            weights = self.kept = {name: value.detach().cpu().clone() for name, value in weights.items()}
        state = {
            "fit": self.fit.name,
            "phase": phase,
            "model": weights,
            "best": {"model": self.kept, **self.best} if self.best else None,
            "optimisation": optimisation.state(),
            "mean": list(network.mean),
            "std": list(network.std),
            "history": self.history,
        }
        self.folder.save_epoch(state, self.history)


def _line(title: str, row: dict[str, Any], epochs: int) -> str:
    auroc = "undefined" if row["val_auroc"] is None else f"{row['val_auroc']:.3f}"
    return (
        f"{title}: epoch {row['epoch']} of {epochs}, loss {row['loss']:.4f}, validation AUROC {auroc}, "
        f"{row['images_per_s']:,.0f} images/s (input {row['input_images_per_s']:,.0f})"
    )
