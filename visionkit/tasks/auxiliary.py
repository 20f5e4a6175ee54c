"""Training with auxiliary classifiers."""

from __future__ import annotations


class AuxiliaryTraining:
    """Mixed into a task: training runs another graph, all else the plain one.

    The task sets `auxiliary` to a model from images to a dict of "logits" and of
    auxiliary logits, of the same layers; or to None, and nothing changes.
    `auxiliary_weight` is the share of each auxiliary loss; 0.3 is GoogLeNet's (Szegedy
    et al. 2015, section 5).
    """

    auxiliary = None
    auxiliary_weight = 0.3

    def call(self, inputs, training=None, mask=None, **kwargs):
        """The task's outputs; in training the dict of `auxiliary`."""
        if training and self.auxiliary is not None:
            return self.auxiliary(inputs, training=True)
        return super().call(inputs, training=training, mask=mask, **kwargs)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The compiled loss of the logits, and its share of each auxiliary."""
        if not isinstance(y_pred, dict):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        y_pred = dict(y_pred)
        logits = y_pred.pop("logits")
        loss = super().compute_loss(x, y, logits, sample_weight, training)
        for auxiliary in y_pred.values():
            # Whatever `compile` was given: an object, a function, a name.
            compiled = self._compile_loss(y, auxiliary, sample_weight)
            loss += self.auxiliary_weight * compiled
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The compiled metrics, of the logits alone."""
        if isinstance(y_pred, dict):
            y_pred = y_pred["logits"]
        return super().compute_metrics(x, y, y_pred, sample_weight)
