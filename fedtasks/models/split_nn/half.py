"""One party's half of a network: an ordinary Keras model with its optimizer, and how a step goes forth and back in it.

What a step has computed stays until the gradient comes back. So nothing is computed twice, dropout and batch statistics
included, and a gradient is that of the very weights that the activations were made with. Where a half only sends and
its layers keep no state, its step is compiled in two parts (see `retained`); any other half has a tape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fedtasks.config import LabelKind
from fedtasks.errors import NetworkInvalid
from fedtasks.models.split_nn.averaging import Averaging
from fedtasks.models.split_nn.compiled import metrics_of, takes_logits
from fedtasks.models.split_nn.cuts import cuts_of, receives_of, sends_of
from fedtasks.models.split_nn.forward import digest_of
from fedtasks.models.split_nn.pieces import Graph, Piece
from fedtasks.models.split_nn.protection.alternatives import Alternatives
from fedtasks.models.split_nn.protection.flips import Correction
from fedtasks.models.split_nn.retained import TwoParts, in_two_parts, tensor_of
from fedtasks.models.split_nn.targets import LABEL, Targets

_ROUNDING = 1e-5

Arrays = Mapping[str, np.ndarray]
"""Values of a batch by the name of an input or of a cut."""


@dataclass
class Step:
    """A batch under way.

    Parameters
    ----------
    known
        Features, received cuts and what pieces have computed, by name.
    tape
        The way back through the pieces; None where it is compiled.

    Attributes
    ----------
    sent
        The cuts that were sent.
    loss
        The author's loss and all penalties, once the last piece is computed; without a label the penalties alone.
    predictions
        What the label's holder predicts.
    kept
        What the compiled way back takes of the way forth.
    """

    known: dict[str, Any]
    tape: tf.GradientTape | None
    sent: dict[str, tf.Tensor] = field(default_factory=dict)
    loss: tf.Tensor | None = None
    predictions: Any = None
    kept: list[tf.Tensor] = field(default_factory=list)


class Half:
    """Weights, optimizer and pieces of one party's model.

    Parameters
    ----------
    model
        A functional Keras model, compiled: with an optimizer, and at the label's holder with a loss.
    has_label
        Whether this party holds the label.

    Attributes
    ----------
    sends, receives
        The cuts, by name.
    needs
        A cut that is sent → the received ones that it is computed from.
    inputs
        Names of the inputs that are features.
    weights
        What rows are scored with: weights and statistics.
    values
        The weights that are trained, as TensorFlow's variables.
    pieces
        What `plan` has made of the model.
    compiled
        What computes each piece in training: `compute` as a function of TensorFlow.
    alternatives, correction
        At the label's holder, what protects its labels; to be set before `plan`.
    averaging
        What averages gradients with those of other workers before weights change; to be set before `plan`.
    outputs
        Names of the outputs where there are several, of which one is `LABEL`.
    label, metrics
        What `predicts` was told, and the metrics that the author compiled; None without any.

    Raises
    ------
    NetworkInvalid
        It is no such model.
    """

    def __init__(self, model: keras.Model, *, has_label: bool) -> None:
        _check(model, has_label=has_label)
        self.model, self.has_label = model, has_label
        sent, received = sends_of(model), receives_of(model)
        self.sends, self.receives = cuts_of(sent), cuts_of(received)
        if not (self.sends or self.receives):
            raise NetworkInvalid("the model has neither a `Send` nor a `Receive`, so no other half takes part in it")
        marked = {id(tensor) for tensor in [*sent.values(), *received.values()]}
        self.inputs = [tensor.name for tensor in model.inputs if id(tensor) not in marked]
        outputs = dict(model.output) if isinstance(model.output, dict) else dict(enumerate(model.outputs))
        predictions = {name: tensor for name, tensor in outputs.items() if id(tensor) not in marked}
        if bool(predictions) != has_label:
            raise NetworkInvalid(
                "this party holds the label, but its model puts out nothing beside what it sends"
                if has_label
                else "this party has no label: all that its model puts out must come from `Send`"
            )
        self._is_named = isinstance(model.output, dict)
        self.outputs = tuple(map(str, predictions)) if self._is_named else ()
        if len(predictions) > 1 and LABEL not in self.outputs:
            raise NetworkInvalid(
                f"the model puts out {len(predictions)} predictions: name them, as in keras.Model(inputs, "
                f'{{"{LABEL}": …, "further": …}}), of which `{LABEL}` is that of the label'
            )
        self.label = LabelKind.BINARY
        self.metrics: Any = None
        self._predictions = {f"predicted {name}": tensor for name, tensor in predictions.items()}
        self._graph = Graph(model, sent, received)
        self.needs = {name: self._graph.needs(tensor) for name, tensor in sent.items()}
        of_predictions = (name for tensor in predictions.values() for name in self._graph.needs(tensor))
        unused = self.receives.keys() - {*of_predictions, *(name for needs in self.needs.values() for name in needs)}
        if unused:
            raise NetworkInvalid(
                f"nothing that the model sends or predicts is computed from `Receive` of `{min(unused)}`: leave it "
                "out at both sides, or use it"
            )
        self.weights: list[keras.Variable] = list(model.weights)
        self.optimizer: keras.optimizers.Optimizer = model.optimizer
        self._trained: list[keras.Variable] = list(model.trainable_variables)
        self.optimizer.build(self._trained)
        self.values = [weight.value for weight in self._trained]
        self.alternatives: Alternatives | None = None
        self.correction: Correction | None = None
        self.averaging: Averaging | None = None
        self.pieces: tuple[Piece, ...] = ()
        self.compiled: list[Any] = []
        self.rounds: dict[str, int] = {}
        self.carried: dict[str, keras.Variable] = {}

    # ------------------------------------------------------------------------------------------------------ the state
    @property
    def state(self) -> list[keras.Variable]:
        """All that the next step depends on: weights, statistics, states of dropout and optimizer, what is carried."""
        return [*self.model.variables, *self.optimizer.variables, *self._seeds, *self.carried.values()]

    @property
    def statistics(self) -> list[keras.Variable]:
        """What rows are scored with and no gradient trains, such as the moments of batch normalization."""
        trained = {id(variable) for variable in self._trained}
        return [each for each in self.weights if id(each) not in trained and "float" in each.dtype]

    def vary(self, number: int) -> None:
        """Let dropout and the like draw otherwise than at other workers, as far as their seeds are the model's."""
        for state in [each.state for layer in self.model._flatten_layers() for each in layer._seed_generators]:
            state.assign(state.numpy() + np.asarray(number, state.numpy().dtype))

    def carry(self) -> None:
        """Keep, from zeros on, what is cut off the gradients of each received cut and carried on to the next step."""
        self.carried = {
            name: keras.Variable(np.zeros(cut.shape, cut.dtype), trainable=False)
            for name, cut in self.receives.items()
            if cut.dtype == "float32"
        }

    @property
    def _seeds(self) -> list[keras.Variable]:
        known = {id(variable) for variable in self.model.variables}
        states = [each.state for layer in self.model._flatten_layers() for each in layer._seed_generators]
        return [state for state in states if id(state) not in known]

    @property
    def arrays(self) -> list[np.ndarray]:
        """The weights as they are now."""
        return [weight.numpy() for weight in self.weights]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over shapes and bytes of the weights."""
        return digest_of(self.arrays)

    def assign(self, weights: Sequence[np.ndarray]) -> None:
        """Set the weights; raise `ValueError` if they are of another shape."""
        if [weight.shape for weight in weights] != [tuple(weight.shape) for weight in self.weights]:
            raise ValueError
        for variable, weight in zip(self.weights, weights, strict=True):
            variable.assign(weight)

    def structured(self, predictions: Sequence[Any]) -> Any:
        """Return predictions as the author's loss takes them: one, several, or several by name."""
        if self._is_named:
            names = [name.removeprefix("predicted ") for name in self._predictions]
            return dict(zip(names, predictions, strict=True))
        return predictions[0] if len(self._predictions) == 1 else list(predictions)

    def predicts(self, label: LabelKind, n_classes: int = 0, further: Sequence[str] = ()) -> None:
        """Say what the label's holder predicts.

        Parameters
        ----------
        label, n_classes
            Of which kind the label is, and how many classes it has if it has such.
        further
            Names of the dataset's further labels, some of which may be outputs of the model.

        Raises
        ------
        NetworkInvalid
            The model's outputs are not of these labels, or its metrics do not take them.
        """
        self.label = label
        unknown = [name for name in self.outputs if name not in (LABEL, *further)]
        if unknown:
            known = ", ".join(f"`{each}`" for each in (LABEL, *further))
            raise NetworkInvalid(f"the output `{unknown[0]}` is no label of the dataset; there are: {known}")
        shape = tuple(self.of_label(self.structured(list(self._predictions.values()))).shape[1:])
        if label is LabelKind.CLASSES and shape != (n_classes,):
            raise NetworkInvalid(
                f"the model predicts rows of shape {shape}, and the label has {n_classes} classes: its output must "
                f"have a value for each, as of Dense({n_classes})"
            )
        if label is not LabelKind.CLASSES and math.prod(shape) != 1:
            raise NetworkInvalid(
                f"the model predicts rows of shape {shape}, and a label of kind {label.value} needs one value a row, "
                "as of Dense(1)"
            )
        rows = {name: np.zeros((1, *tensor.shape[1:]), "float32") for name, tensor in self._predictions.items()}
        labels: Any = np.zeros(1, np.int32) if label is LabelKind.CLASSES else np.zeros((1, 1), np.float32)
        if self._is_named:
            labels = {name: labels if name == LABEL else np.zeros((1, 1), np.float32) for name in self.outputs}
        self.metrics = metrics_of(self.model, labels, self.structured(list(rows.values())))

    def of_label(self, predictions: Any) -> Any:
        """Return of predictions those of the dataset's label, where there are several."""
        return predictions[LABEL] if self._is_named else predictions

    def plan(self, rounds: Mapping[str, int]) -> None:
        """Cut the model into pieces: `rounds` says of the cuts of both halves in which round each is sent."""
        self.rounds = dict(rounds)
        self.pieces = self._graph.pieces(self._predictions, rounds)
        compute = [partial(self.compute, piece) for piece in self.pieces]
        # Without autograph, as Keras itself does in `fit`: it would parse sources, which takes long, and two threads
        # must not do so at once.
        self.compiled = [tf.function(each, autograph=False, reduce_retracing=True) for each in compute]
        self._infer = [
            tf.function(partial(each, training=False), autograph=False, reduce_retracing=True) for each in compute
        ]
        self._update = tf.function(self.update, autograph=False, reduce_retracing=True)
        self._at_once = tf.function(self._step_at_once, autograph=False, reduce_retracing=True)
        self._differences = tf.function(self._residual_differences, autograph=False, reduce_retracing=True)
        self._parts: TwoParts | None = None
        self._is_compiled = False
        self._rest: list[Any] | None = None  # of a step at once: what `catch_up` takes; None before the first one

    @property
    def is_at_once(self) -> bool:
        """Whether nothing is waited for after the loss: one compiled function does the whole step then."""
        return self.has_label and not self.sends

    @property
    def coupling(self) -> str | None:
        """Name of a layer that mixes the rows of a batch in what is computed of received cuts; None without one."""
        for layer in self.model.layers:
            inner = [each for each in layer._flatten_layers() if isinstance(each, keras.layers.BatchNormalization)]
            if inner and self._graph.needs(layer.output):
                return str(inner[0].name)
        return None

    # ------------------------------------------------------------------------------------------------------ training
    def begin(self, features: Arrays) -> Step:
        """Begin a step with the features of a batch, by input."""
        if not (self._is_compiled or self.has_label or self.receives):
            self._parts = self._in_two_parts()  # not when it is planned: halves that only score have no use for it
        self._is_compiled = True
        if self._parts:
            return Step(dict(features), None)
        return Step({name: tensor_of(value) for name, value in features.items()}, tf.GradientTape(persistent=True))

    def forward(self, step: Step, place: int, received: Arrays, targets: Targets | None = None) -> Arrays:
        """Compute piece number `place` with what came for it, and the last one with the batch's labels.

        Returns
        -------
        dict
            What is to be sent, by cut.
        """
        piece = self.pieces[place]
        if self._parts:
            found, step.kept = self._parts.first(*(step.known[name] for name in piece.takes))
            return {name: np.asarray(tensor) for name, tensor in zip(piece.sends, found, strict=True)}
        assert step.tape is not None  # noqa: S101 - see `begin`
        tensors = {name: tensor_of(value) for name, value in received.items()}
        step.known |= tensors
        with step.tape:
            for tensor in tensors.values():
                step.tape.watch(tensor)
            found, loss = self.compiled[place](
                [step.known[name] for name in piece.takes],
                targets.trained if targets else None,
                targets.weights if targets else None,
            )
            step.loss = loss if step.loss is None else step.loss + loss
        results = dict(zip(piece.gives, found, strict=True))
        step.known |= results
        step.sent |= {name: results[name] for name in piece.sends}
        if place == len(self.pieces) - 1:
            step.predictions = self.structured([results[name] for name in self._predictions])
        return {name: np.asarray(results[name]) for name in piece.sends}

    def gradients(self, step: Step, receives: Sequence[str], returned: Arrays, *, of_loss: bool = True) -> Arrays:
        """Return the gradients with respect to received cuts.

        Parameters
        ----------
        receives
            The cuts.
        returned
            Sent cut → the gradient that came back for it, of all that are computed from these cuts.
        of_loss
            Whether this half's own loss counts.
        """
        assert step.tape is not None  # noqa: S101 - a half that receives has one
        targets, gradients = self._targets(step if of_loss else replace(step, loss=None), returned)
        found = step.tape.gradient(targets, [step.known[name] for name in receives], output_gradients=gradients)
        pairs = zip(receives, found, strict=True)
        return {name: np.asarray(_dense(each, step.known[name])) for name, each in pairs}

    def offsets(self, step: Step, targets: Targets) -> Arrays:
        """Return how the gradients of the loss with respect to received cuts change if a row has another label.

        Returns
        -------
        dict
            Cut → ``(alternatives, n, …)``: for each output all its labels but the first, each against the first.
        """
        predictions = tf.nest.flatten(step.predictions)
        known = {name: step.known[name] for name in self.receives}
        assert step.tape is not None  # noqa: S101 - a half that receives has one
        found = [
            step.tape.gradient(predictions, list(known.values()), output_gradients=residuals)
            for residuals in self._differences(predictions, targets.trained, targets.weights)
        ]
        by_cut = zip(known.items(), zip(*found, strict=True), strict=True)
        return {name: np.stack([_dense(one, tensor).numpy() for one in each]) for (name, tensor), each in by_cut}

    def apply(self, step: Step, returned: Arrays, n_rows: int = 1) -> None:
        """Change the weights.

        Parameters
        ----------
        returned
            The gradients that came back, of all cuts that were sent.
        n_rows
            How many rows the batch has: as much do these gradients count beside those of other workers.
        """
        if self._parts and step.tape is None:
            found = self._parts.second(*step.kept, *(returned[name] for name in self.pieces[0].sends))
            if self.averaging:
                self._change(self._unflattened(found), n_rows)
            return
        assert step.tape is not None  # noqa: S101 - see `begin`
        targets, gradients = self._targets(step, returned)
        self._change(step.tape.gradient(targets, self.values, output_gradients=gradients), n_rows)

    def apply_others(self) -> None:
        """Change the weights by the gradients of other workers, in a step in which this one has no batch."""
        self._change([], 0)

    def _change(self, gradients: Sequence[Any], n_rows: int) -> None:
        self._update(self.averaging.mean(gradients, n_rows) if self.averaging else gradients)

    def step_at_once(self, features: Arrays, received: Arrays, targets: Targets) -> tuple[float, Any, Arrays, Arrays]:
        """Do a step that waits for nothing after the loss, as far as the other half waits for it; then `catch_up`.

        Returns
        -------
        tuple
            The loss with all penalties, the predictions, the gradients with respect to received cuts, and where there
            are `alternatives` what `offsets` returns.
        """
        known = {**features, **received}
        values = [known[name] for name in self.pieces[0].takes]
        labels, weights = targets.trained, targets.weights
        if self._rest is None:
            self._parts, self._rest = self._at_once_in_two_parts(values, labels, weights), []
        if self._parts:
            weighted = [] if weights is None else [weights]
            (loss, *results), self._rest = self._parts.first(*values, *tf.nest.flatten(labels), *weighted)
            left = iter(results)
            predictions = self.structured([*islice(left, len(self._predictions))])
            gradients, offsets = [*islice(left, len(self.receives))], [*left]
        else:
            loss, predictions, gradients, offsets, self._rest = self._at_once(values, labels, weights)
        found = dict(zip(self.receives, map(np.asarray, gradients), strict=True))
        others = dict(zip(self.receives, map(np.asarray, offsets), strict=True)) if offsets else {}
        return float(loss), predictions, found, others

    def catch_up(self, n_rows: int = 1) -> None:
        """Change the weights by the last `step_at_once`, of so many rows, unless that has done so."""
        rest, self._rest = self._rest, []
        if rest and self._parts:
            found = self._parts.second(*rest)
            rest = self._unflattened(found) if self.averaging else []
        if rest:
            self._change(rest, n_rows)

    # ------------------------------------------------------------------------------------------------------- scoring
    def infer(self, place: int, known: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """Return what piece number `place` gives, as after training: without dropout, by the statistics of training."""
        piece = self.pieces[place]
        found, _ = self._infer[place]([known[name] for name in piece.takes])
        return dict(zip(piece.gives, found, strict=True))

    def predictions_of(self, known: Mapping[str, Any]) -> Any:
        """Return what the label's holder predicts, of all that its pieces gave; None at the other half."""
        return self.structured([known[name] for name in self._predictions]) if self.has_label else None

    def scores_of(self, predictions: Any, label: LabelKind) -> np.ndarray:
        """Return predictions as scores: probabilities where the author's loss takes logits.

        Returns
        -------
        ndarray
            Shape ``(n,)`` for a label of two classes or a number, else ``(n, classes)``.
        """
        found: np.ndarray = self.scored(predictions, label).numpy()
        if (
            label is not LabelKind.NUMBER
            and len(found)
            and not (found.min() >= -_ROUNDING and found.max() <= 1 + _ROUNDING)
        ):
            raise NetworkInvalid(
                f"the model predicts {found.min():.3g} to {found.max():.3g}, which are no probabilities: end it with a "
                "sigmoid or softmax, or compile it with a loss that says `from_logits`"
            )
        return found

    def scored(self, predictions: Any, label: LabelKind) -> tf.Tensor:
        """Return what `scores_of` does, as a tensor."""
        return self._scored(LABEL, self.of_label(predictions), is_classes=label is LabelKind.CLASSES)

    def further_scores(self, predictions: Any) -> dict[str, np.ndarray]:
        """Return predictions of further labels as scores, by name of the label.

        Returns
        -------
        dict of str to ndarray
            Shape ``(n,)``, or ``(n, classes)`` of an output of several values; probabilities where the author's loss
            takes logits.
        """
        found = {name: predictions[name] for name in self.outputs if name != LABEL}
        return {
            name: self._scored(name, each, is_classes=math.prod(each.shape[1:]) > 1).numpy()
            for name, each in found.items()
        }

    def _scored(self, output: str, predictions: Any, *, is_classes: bool) -> tf.Tensor:
        values = tf.convert_to_tensor(predictions)
        if takes_logits(self.model, output):
            values = tf.nn.softmax(values) if is_classes else tf.sigmoid(values)
        return values if is_classes else tf.reshape(values, [-1])

    def loss_of(self, predictions: Any, targets: Targets) -> float:
        """Return the author's loss, without penalties."""
        self.model._clear_losses()
        total = self.model.compute_loss(y=targets.labels, y_pred=predictions, sample_weight=targets.weights)
        return float(total) - sum(map(float, self.model.losses))

    # -------------------------------------------------------------------------------------- as TensorFlow compiles it
    def compute(
        self,
        piece: Piece,
        values: Sequence[tf.Tensor],
        labels: Any = None,
        weights: Any = None,
        *,
        training: bool = True,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return what a piece gives, and in training its part of the loss.

        That is what its layers add to it; after the last one also the author's loss and the penalties on weights.
        """
        # What layers have added for another piece or batch is of another graph.
        self.model._clear_losses()
        found = piece.network(list(values), training=training)
        results = list(found) if isinstance(found, list | tuple) else [found]
        if not training:
            return results, tf.zeros(())
        if piece is not self.pieces[-1]:
            added = [loss for layer in piece.network._flatten_layers() for loss in layer._losses]
            return results, tf.add_n(added) if added else tf.zeros(())
        if self.has_label:
            predicted = self.structured([results[piece.gives.index(name)] for name in self._predictions])
            loss = partial(self._loss, predicted, weights)
            return results, self.correction.loss(loss, labels) if self.correction else loss(labels)
        penalties = self.model.losses
        return results, tf.add_n(penalties) if penalties else tf.zeros(())

    def update(self, gradients: Sequence[Any]) -> None:
        """Change the weights by their gradients."""
        self.optimizer.apply(list(gradients), self._trained)

    def _in_two_parts(self) -> TwoParts | None:
        """Compile the one piece of a half that only sends: what it sends, and what its weights' gradients are."""
        (piece,) = self.pieces
        sends = [self.sends[name] for name in piece.sends]
        n_inputs = len(piece.takes)

        def step(*known: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
            with tf.GradientTape() as tape:
                sent, penalty = self.compute(piece, known[:n_inputs])
            returned = [*known[n_inputs:], tf.ones_like(penalty)]
            gradients = tape.gradient([*sent, penalty], self.values, output_gradients=returned)
            return sent, self._flattened(gradients)

        return self._compiled(
            step,
            [tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for tensor in piece.network.inputs],
            [tf.TensorSpec((None, *cut.shape), cut.dtype) for cut in sends],
        )

    def _at_once_in_two_parts(self, values: Sequence[np.ndarray], labels: Any, weights: Any) -> TwoParts | None:
        """Compile a whole step of the label's holder: what is sent and told, and what its weights' gradients are."""
        flat = tf.nest.flatten(labels)
        n_values, n_known = len(values), len(values) + len(flat)

        def step(*known: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
            packed = tf.nest.pack_sequence_as(labels, known[n_values:n_known])
            found = self._differentiated(known[:n_values], packed, None if weights is None else known[-1])
            loss, predictions, gradients, outgoing, offsets = found
            return [loss, *predictions, *outgoing, *offsets], self._flattened(gradients)

        arrays = [*values, *flat, *([] if weights is None else [weights])]
        return self._compiled(step, [tf.TensorSpec((None, *each.shape[1:]), each.dtype) for each in arrays], [])

    def _compiled(self, step: Any, now: list[tf.TensorSpec], later: list[tf.TensorSpec]) -> TwoParts | None:
        def finish(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
            if self.averaging:
                return tensors
            self.update(self._unflattened(tensors))
            return []

        return in_two_parts(step, finish, now, later)

    def _flattened(self, gradients: Sequence[Any]) -> list[tf.Tensor]:
        """Return gradients as tensors: of an embedding table there are two or three, and of some weights none."""
        self._gradients = gradients
        return [each for each in tf.nest.flatten(gradients, expand_composites=True) if each is not None]

    def _unflattened(self, tensors: Sequence[tf.Tensor]) -> list[Any]:
        left = iter(tensors)
        form = tf.nest.flatten(self._gradients, expand_composites=True)
        found = [None if each is None else next(left) for each in form]
        return list(tf.nest.pack_sequence_as(self._gradients, found, expand_composites=True))

    def _step_at_once(self, values: list[tf.Tensor], labels: Any, weights: Any) -> tuple[Any, ...]:
        loss, predictions, gradients, outgoing, offsets = self._differentiated(values, labels, weights)
        if self.averaging is None:
            self.update(gradients)
            gradients = []
        return loss, self.structured(predictions), outgoing, offsets, gradients

    def _differentiated(self, values: Sequence[tf.Tensor], labels: Any, weights: Any) -> tuple[Any, ...]:
        """Return loss, predictions, gradients of the weights, and for each received cut its gradient and `offsets`."""
        piece = self.pieces[0]
        tensors = [tf.convert_to_tensor(value) for value in values]
        received = [tensors[piece.takes.index(name)] for name in self.receives]
        with tf.GradientTape(persistent=self.alternatives is not None) as tape:
            for tensor in received:
                tape.watch(tensor)
            predictions, loss = self.compute(piece, tensors, labels, weights)
        gradients, outgoing = tape.gradient(loss, [self.values, received])
        offsets = []
        if self.alternatives:
            found = [
                tape.gradient(predictions, received, output_gradients=residuals)
                for residuals in self._residual_differences(predictions, labels, weights)
            ]
            pairs = zip(received, zip(*found, strict=True), strict=True)
            offsets = [tf.stack([_dense(one, tensor) for one in each]) for tensor, each in pairs]
        outgoing = [_dense(each, tensor) for each, tensor in zip(outgoing, received, strict=True)]
        return loss, predictions, gradients, outgoing, offsets

    def _loss(self, predicted: Any, weights: Any, labels: Any) -> tf.Tensor:
        """Return the author's loss of a batch in training, with all penalties."""
        return self.model.compute_loss(y=labels, y_pred=predicted, sample_weight=weights, training=True)

    def _residual_differences(self, predictions: Sequence[tf.Tensor], labels: Any, weights: Any) -> list[Any]:
        """Return how the gradients of the loss with respect to predictions differ between labels, for each pair."""
        assert self.alternatives is not None  # noqa: S101 - asked for only where there are some
        if weights is not None:
            weights = tf.fill(tf.shape(weights), tf.cast(self.alternatives.most_weight, weights.dtype))

        def residuals(name: str, value: float) -> list[tf.Tensor]:
            like = labels[name] if name else labels
            other = tf.zeros_like(like) + tf.cast(value, like.dtype)
            with tf.GradientTape() as tape:
                watched = [tf.identity(each) for each in predictions]
                for each in watched:
                    tape.watch(each)
                # The loss alone: penalties depend on no label, and belong to the function that has computed them.
                loss = self.model._compile_loss(
                    {**labels, name: other} if name else other, self.structured(watched), weights
                )
            found = tape.gradient(loss, watched)
            return [_dense(each, tensor) for each, tensor in zip(found, watched, strict=True)]

        differences = []
        for name, (first, *others) in self.alternatives.values.items():
            base = residuals(name, first)
            for value in others:
                pairs = zip(residuals(name, value), base, strict=True)
                differences.append([one - other for one, other in pairs])
        return differences

    def _targets(self, step: Step, returned: Arrays) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        targets, gradients = [], []
        if step.loss is not None:
            targets, gradients = [step.loss], [tf.ones_like(step.loss)]
        for name, gradient in returned.items():
            targets.append(step.sent[name])
            gradients.append(tensor_of(gradient))
        return targets, gradients


def _check(model: Any, *, has_label: bool) -> None:
    """Raise `NetworkInvalid` unless it is a compiled functional model of Keras."""
    if not isinstance(model, keras.Model):
        raise NetworkInvalid(f"`network` returns {type(model).__name__}; it must return a keras.Model")
    if not getattr(model, "_nodes_by_depth", None):
        raise NetworkInvalid("the model is not functional: make it by keras.Model(inputs, outputs)")
    if getattr(model, "optimizer", None) is None:
        raise NetworkInvalid("the model is not compiled: call model.compile(optimizer=…) before returning it")
    has_loss = getattr(model, "_compile_loss", None) is not None
    if has_loss != has_label:
        raise NetworkInvalid(
            "this party holds the label: name a loss in model.compile(…)"
            if has_label
            else "this party has no label, so its model has no loss: leave it out of model.compile(…)"
        )
    if not model.trainable_variables:
        raise NetworkInvalid("the model has no weights to train")


def _dense(gradient: Any, tensor: tf.Tensor) -> tf.Tensor:
    """Return a gradient as a tensor: of zeros where nothing depends on that tensor."""
    return tf.zeros_like(tensor) if gradient is None else tf.convert_to_tensor(gradient)
