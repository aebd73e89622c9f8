"""A train function for the contract's Trainer: the smallest model that scores."""

from __future__ import annotations

from penstock.components.training import FnArgs


def train(fn_args: FnArgs) -> None:
    """Write a model of two weights chosen by hand, which reads tf.Examples."""
    import tensorflow as tf

    class Scorer(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.slope = tf.Variable(0.15)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])  # type: ignore[untyped-decorator]
        def score(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
            parsed = tf.io.parse_example(
                examples, {"fare": tf.io.FixedLenFeature([1], tf.float32)}
            )
            return {"score": tf.sigmoid(self.slope * (parsed["fare"] - 15))}

    scorer = Scorer()
    tf.saved_model.save(
        scorer, fn_args.serving_model_dir, {"serving_default": scorer.score}
    )
