"""One loaded version of a model, which answers as TensorFlow Serving would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)

from penstock.components.serving.model_server.inputs import (
    example_count,
    request_inputs,
    serialized_examples,
    wrong_filter,
)
from penstock.components.serving.model_server.outputs import (
    encode,
    fill_classes,
    fill_values,
)
from penstock.components.serving.model_server.saved_model import Call, Graph
from penstock.components.serving.model_server.status import Code, ServableError
from penstock.components.serving.model_server.tensors import Array

__all__ = ["Code", "Servable", "ServableError", "example_count"]

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"

_MAX_CALLS = 64
"""Most combinations of signature and output filter that are kept compiled."""


class Servable:
    """A SavedModel that answers requests, from any number of threads at once.

    Attributes:
        folder: Where it was loaded from.
        signatures: Its signatures by name, without the one of the initializer.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int | None = None,
        version: int | None = None,
        tags: Iterable[str] = ("serve",),
        check_method_names: bool = False,
        as_content: bool = False,
        restore: bool = True,
    ) -> None:
        """Load a SavedModel; warm-up records are not replayed (see `replay`).

        Args:
            folder: Folder of the SavedModel.
            threads: Threads within and between operations; None lets TensorFlow
                choose. The first model of a process decides for all.
            version: Version number that answers carry; None leaves it out.
            tags: Tags of the meta graph to load, all of them.
            check_method_names: Refuse a signature whose method name is another than
                the one of the call, as `--enable_signature_method_name_check` does.
                Without it, as by default there, Classify and Regress only ask that
                inputs and outputs have the right names.
            as_content: Put the numbers of Predict's answers into `tensor_content`, as
                `--enable_serialization_as_tensor_content` does.
            restore: Restore the variables; without them every request fails.

        Raises:
            ServableError: It cannot be loaded.
        """
        self.folder = Path(folder)
        self._version = version
        self._check_method_names = check_method_names
        self._as_content = as_content
        self._graph = Graph(self.folder, frozenset(tags), threads, restore)
        self._signature_defs = dict(self._graph.meta_graph.signature_def)
        self.signatures: Mapping[str, meta_graph_pb2.SignatureDef] = {
            name: signature
            for name, signature in sorted(self._signature_defs.items())
            if not name.startswith("__saved_model")
        }
        self._calls: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.Lock()
        # The graph itself lives in the session now; requests need only signatures.
        self._graph.meta_graph.ClearField("graph_def")

    def close(self) -> None:
        """Free its variables; nothing may be running."""
        self._graph.close()

    # --- the calls of PredictionService

    def predict(
        self, request: predict_pb2.PredictRequest
    ) -> predict_pb2.PredictResponse:
        """Run a signature on named tensors.

        Raises:
            ServableError: The signature, the inputs or the output filter are wrong,
                or the model failed.
        """
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        response = predict_pb2.PredictResponse()
        run = self._prepared(
            ("predict", name, *request.output_filter),
            lambda: self._prepare_predict(name, request.output_filter),
        )
        outputs = run(request)
        self._stamp(response.model_spec, request.model_spec.name, name)
        for alias, value in outputs.items():
            encode(alias, value, response.outputs[alias], self._as_content)
        return response

    def classify(
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """Run a classification signature on tf.Examples.

        Raises:
            ServableError: The signature or the input is wrong, or the model failed.
        """
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = self._signature(name)
        feed, fetches = self._classification(signature)
        examples = serialized_examples(request.input)
        outputs = self._run(feed, fetches, examples)
        response = classification_pb2.ClassificationResponse()
        self._stamp(response.model_spec, request.model_spec.name, name)
        fill_classes(signature, len(examples), outputs, response.result)
        return response

    def regress(
        self, request: regression_pb2.RegressionRequest
    ) -> regression_pb2.RegressionResponse:
        """Run a regression signature on tf.Examples.

        Raises:
            ServableError: The signature or the input is wrong, or the model failed.
        """
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = self._signature(name)
        feed, fetches = self._regression(signature)
        examples = serialized_examples(request.input)
        outputs = self._run(feed, fetches, examples)
        response = regression_pb2.RegressionResponse()
        self._stamp(response.model_spec, request.model_spec.name, name)
        fill_values(signature, len(examples), outputs, response.result)
        return response

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest
    ) -> inference_pb2.MultiInferenceResponse:
        """Run several classification and regression signatures on the same examples.

        Raises:
            ServableError: A task or the input is wrong, or the model failed.
        """
        feed, fetches = self._tasks(request.tasks)
        examples = serialized_examples(request.input)
        # Each tensor once, in the order of names, though several tasks may want it.
        outputs = self._run(feed, sorted(set(fetches)), examples)
        response = inference_pb2.MultiInferenceResponse()
        for task in request.tasks:
            name = task.model_spec.signature_name or DEFAULT_SIGNATURE
            signature = self._signature_defs[name]
            result = response.results.add()
            if task.method_name == CLASSIFY_METHOD:
                fill_classes(
                    signature, len(examples), outputs, result.classification_result
                )
            else:
                fill_values(signature, len(examples), outputs, result.regression_result)
            self._stamp(result.model_spec, task.model_spec.name, name)
        return response

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Return the signatures, which is all that TensorFlow Serving can tell.

        Raises:
            ServableError: Something else is asked for, or nothing.
        """
        check_metadata_request(request)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        known = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self._signature_defs.items():
            known.signature_def[name].CopyFrom(signature)
        response.metadata["signature_def"].Pack(known)
        response.model_spec.name = request.model_spec.name
        if self._version is not None:
            response.model_spec.version.value = self._version
        return response

    def run_log(self, log: prediction_log_pb2.PredictionLog) -> None:
        """Run the request of a warm-up record and drop the answer.

        Raises:
            ServableError: It fails, or its kind cannot be replayed.
        """
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            self.predict(log.predict_log.request)
        elif kind == "classify_log":
            self.classify(log.classify_log.request)
        elif kind == "regress_log":
            self.regress(log.regress_log.request)
        elif kind == "multi_inference_log":
            self.multi_inference(log.multi_inference_log.request)
        elif kind is not None:  # a record without a request is read and passed over
            raise ServableError(
                Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}"
            )

    # --- signatures

    def _stamp(self, spec: model_pb2.ModelSpec, model: str, signature: str) -> None:
        spec.name = model
        spec.signature_name = signature
        if self._version is not None:
            spec.version.value = self._version

    def _prepared(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        # Names in keys come from clients, so there is an end to what is kept.
        found = self._calls.get(key)
        if found is None:
            with self._lock:
                found = self._calls.get(key)
                if found is None:
                    found = make()
                    if len(self._calls) < _MAX_CALLS:
                        self._calls[key] = found
        return found

    def _prepare_predict(
        self, name: str, output_filter: Sequence[str]
    ) -> Callable[[predict_pb2.PredictRequest], dict[str, Array]]:
        signature = self._signature_defs.get(name)
        if signature is None:
            raise ServableError(
                Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
            )
        methods = (PREDICT_METHOD, CLASSIFY_METHOD, REGRESS_METHOD)
        if self._check_method_names and signature.method_name not in methods:
            raise ServableError(
                Code.INTERNAL,
                "Expected prediction signature method_name to be one of "
                f"{{{', '.join(methods)}}}. Was: {signature.method_name}",
            )
        inputs = sorted(signature.inputs.items())
        # TensorFlow Serving looks at the inputs before it looks at the filter.
        aliases = list(output_filter) or sorted(signature.outputs)
        wrong = wrong_filter(signature, aliases)
        call: Call | None = None
        if wrong is None:
            call = self._graph.call(
                [tensor.name for _, tensor in inputs],
                [signature.outputs[alias].name for alias in aliases],
            )

        def run(request: predict_pb2.PredictRequest) -> dict[str, Array]:
            feeds = request_inputs(signature, inputs, request)
            if call is None:
                assert wrong is not None
                raise wrong
            return dict(zip(aliases, call(feeds), strict=True))

        return run

    def _signature(self, name: str) -> meta_graph_pb2.SignatureDef:
        signature = self._signature_defs.get(name)
        if signature is None:
            raise ServableError(
                Code.INVALID_ARGUMENT, f"No signature was found with the name: {name}"
            )
        return signature

    def _classification(
        self, signature: meta_graph_pb2.SignatureDef
    ) -> tuple[str, list[str]]:
        self._check_method(signature, CLASSIFY_METHOD, "classification")
        if len(signature.inputs) != 1:
            raise ServableError(Code.INVALID_ARGUMENT, "Expected one input Tensor.")
        if len(signature.outputs) not in (1, 2):
            raise ServableError(
                Code.INVALID_ARGUMENT,
                f"Expected one or two output Tensors, found {len(signature.outputs)}",
            )
        if "inputs" not in signature.inputs:
            raise ServableError(
                Code.INVALID_ARGUMENT,
                f"No classification inputs found in SignatureDef: {signature}",
            )
        found = [key for key in ("classes", "scores") if key in signature.outputs]
        if not found:
            raise ServableError(
                Code.INVALID_ARGUMENT,
                "Expected classification signature outputs to contain at least one of "
                f'"classes" or "scores". Signature was: {signature}',
            )
        return signature.inputs["inputs"].name, [
            signature.outputs[key].name for key in found
        ]

    def _regression(
        self, signature: meta_graph_pb2.SignatureDef
    ) -> tuple[str, list[str]]:
        self._check_method(signature, REGRESS_METHOD, "regression")
        if len(signature.inputs) != 1:
            raise ServableError(Code.INVALID_ARGUMENT, "Expected one input Tensor.")
        if len(signature.outputs) != 1:
            raise ServableError(Code.INVALID_ARGUMENT, "Expected one output Tensor.")
        for key, names in (
            ("inputs", signature.inputs),
            ("outputs", signature.outputs),
        ):
            if key not in names:
                raise ServableError(
                    Code.INVALID_ARGUMENT,
                    f"No regression {key} found in SignatureDef: {signature}",
                )
        return signature.inputs["inputs"].name, [signature.outputs["outputs"].name]

    def _check_method(
        self, signature: meta_graph_pb2.SignatureDef, method: str, kind: str
    ) -> None:
        if self._check_method_names and signature.method_name != method:
            raise ServableError(
                Code.INVALID_ARGUMENT,
                f"Expected {kind} signature method_name to be {method}. "
                f"Was: {signature.method_name}",
            )

    def _tasks(
        self, tasks: Sequence[inference_pb2.InferenceTask]
    ) -> tuple[str, list[str]]:
        model = feed = ""
        seen: set[str] = set()
        fetches: list[str] = []
        for task in tasks:
            if not task.model_spec.name:
                raise ServableError(
                    Code.INVALID_ARGUMENT, "Found ModelSpec with an empty model name."
                )
            model = model or task.model_spec.name
            if task.model_spec.name != model:
                raise ServableError(
                    Code.INVALID_ARGUMENT,
                    "All ModelSpecs in a MultiInferenceRequest must access the same "
                    "model name.",
                )
            name = task.model_spec.signature_name or DEFAULT_SIGNATURE
            if name in seen:
                raise ServableError(
                    Code.INVALID_ARGUMENT, f"Duplicate evaluation of signature: {name}"
                )
            seen.add(name)
            signature = self._signature_defs.get(name)
            if signature is None:
                raise ServableError(
                    Code.INVALID_ARGUMENT,
                    f"Requested signature not found in model graph: {name}",
                )
            if task.method_name == CLASSIFY_METHOD:
                own, outputs = self._classification(signature)
            elif task.method_name == REGRESS_METHOD:
                own, outputs = self._regression(signature)
            else:
                raise ServableError(
                    Code.UNIMPLEMENTED,
                    f"Unsupported signature method_name: {task.method_name}",
                )
            feed = feed or own
            if own != feed:
                raise ServableError(
                    Code.INVALID_ARGUMENT,
                    "Input tensor must be the same for all Signatures.",
                )
            fetches += outputs
        return feed, fetches

    def _run(
        self, feed: str, fetches: Sequence[str], examples: Array
    ) -> dict[str, Array]:
        call = self._prepared(
            ("examples", feed, *fetches),
            lambda: self._graph.call([feed] if feed else [], fetches),
        )
        return dict(zip(fetches, call([examples] if feed else []), strict=True))


def check_metadata_request(
    request: get_model_metadata_pb2.GetModelMetadataRequest,
) -> None:
    """Refuse a request for anything but signatures.

    Raises:
        ServableError: It asks for nothing, or for something else.
    """
    if not request.HasField("model_spec"):
        raise ServableError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
    if not request.metadata_field:
        raise ServableError(
            Code.INVALID_ARGUMENT,
            "GetModelMetadataRequest must specify at least one metadata_field",
        )
    for field in request.metadata_field:
        if field != "signature_def":
            raise ServableError(
                Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported"
            )
