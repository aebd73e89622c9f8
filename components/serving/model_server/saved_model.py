"""A SavedModel as a graph and a session, loaded as TensorFlow Serving loads it.

Not `tf.saved_model.load`: TensorFlow Serving knows nothing of Python objects. It
imports the graph, restores the variables if there are any, runs the initializer, and
feeds and fetches tensors by name. Doing the same gives the same errors, the same
half-loaded models, and calls of a few microseconds from any number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, saved_model_pb2

from penstock.components.serving.model_server.status import Code, ServableError
from penstock.components.serving.model_server.tensors import Array

Call = Callable[[Sequence[Array]], list[Array]]
"""Feeds in, fetches out, in the order they were named in."""

_INIT_OP = "__saved_model_init_op"
_CALLER_THREAD = -1  # run each request in the thread that brought it

# Importing a graph is Python work of tens of milliseconds on structures that
# TensorFlow guards badly while several threads build graphs.
_importing = threading.Lock()


def servable_error(error: Exception) -> ServableError:
    """Return an exception of TensorFlow as the error that a client is told."""
    if isinstance(error, ServableError):
        return error
    if isinstance(error, tf.errors.OpError):
        return ServableError(Code(error.error_code), str(error.message))
    if isinstance(error, ValueError | TypeError):
        return ServableError(Code.INVALID_ARGUMENT, str(error))
    return ServableError(Code.INTERNAL, f"{type(error).__name__}: {error}")


class Graph:
    """A loaded SavedModel: named tensors in, named tensors out.

    Attributes:
        meta_graph: The MetaGraphDef with the tags asked for.
    """

    def __init__(
        self,
        folder: Path,
        tags: frozenset[str],
        threads: int | None = None,
        restore: bool = True,
    ) -> None:
        """Load a SavedModel.

        Args:
            folder: Folder of the SavedModel.
            tags: The tags of its meta graph, all of them and no others.
            threads: Threads within and between operations; None lets TensorFlow
                choose. Set once per process: the first model loaded decides.
            restore: Restore the variables.

        Raises:
            ServableError: It cannot be loaded.
        """
        self.meta_graph = _read_meta_graph(folder, tags)
        _check_constants(self.meta_graph)
        try:
            self._session = _session(self.meta_graph, threads)
            if restore:
                _restore(self, folder)
            _initialize(self, folder)
        except Exception as error:  # TensorFlow raises anything on a damaged model
            raise servable_error(error) from error

    def call(
        self, feeds: Sequence[str], fetches: Sequence[str], targets: Sequence[str] = ()
    ) -> Call:
        """Return a function of feeds, to be called from any thread.

        Args:
            feeds: Names of the tensors that are given.
            fetches: Names of the tensors that are returned; may repeat.
            targets: Names of the operations that are run for their effect.

        Raises:
            ServableError: The graph has no such tensors.
        """
        distinct = list(dict.fromkeys(fetches))
        options = config_pb2.CallableOptions(feed=feeds, fetch=distinct, target=targets)
        options.run_options.inter_op_thread_pool = _CALLER_THREAD
        try:
            run = self._session._make_callable_from_options(options)
        except Exception as error:  # a name that the graph does not have
            raise servable_error(error) from error
        places = [distinct.index(name) for name in fetches]

        def call(values: Sequence[Array]) -> list[Array]:
            try:
                found = run(*values)
            except Exception as error:  # of the model, or of how it takes its inputs
                raise servable_error(error) from error
            # Scalars come back as Python or NumPy scalars, bytes among them.
            return [_as_array(found[place]) for place in places]

        return call

    def close(self) -> None:
        """Free the variables; nothing may be running."""
        self._session.close()


def _as_array(value: Any) -> Array:
    if isinstance(value, np.ndarray):
        return value
    return np.asarray(value, np.object_ if isinstance(value, bytes) else None)


def _read_meta_graph(folder: Path, tags: frozenset[str]) -> meta_graph_pb2.MetaGraphDef:
    saved = _read_saved_model(folder)
    for meta_graph in saved.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == tags:
            found: meta_graph_pb2.MetaGraphDef = meta_graph
            return found
    raise ServableError(
        Code.NOT_FOUND,
        "Could not find meta graph def matching supplied tags: "
        f"{{ {' '.join(sorted(tags))} }}. To inspect available tag-sets in the "
        "SavedModel, please use the SavedModel CLI: `saved_model_cli`",
    )


def _read_saved_model(folder: Path) -> saved_model_pb2.SavedModel:
    saved = saved_model_pb2.SavedModel()
    binary, text = folder / "saved_model.pb", folder / "saved_model.pbtxt"
    path = binary if binary.exists() else text
    try:
        if path is binary:
            saved.ParseFromString(path.read_bytes())
        else:
            text_format.Parse(path.read_text(encoding="utf-8"), saved)
    except (FileNotFoundError, NotADirectoryError):
        raise ServableError(
            Code.NOT_FOUND,
            "Could not find SavedModel .pb or .pbtxt at supplied export directory "
            f"path: {folder}. Check that the directory exists and that you have the "
            "right permissions for accessing it.",
        ) from None
    except (DecodeError, text_format.ParseError, UnicodeDecodeError):
        kind = "binary" if path is binary else "text"
        raise ServableError(
            Code.DATA_LOSS, f"Can't parse {path} as {kind} proto"
        ) from None
    except OSError as error:
        raise ServableError(
            Code.PERMISSION_DENIED, f"{path}; {error.strerror}"
        ) from error
    return saved


def _check_constants(meta_graph: meta_graph_pb2.MetaGraphDef) -> None:
    for node in meta_graph.graph_def.node:
        if node.op == "Const" and "value" not in node.attr:
            raise ServableError(
                Code.FAILED_PRECONDITION,
                f'Saved model contains node "{node.name}" which is a constant tensor '
                "but no value has been provided",
            )


def _session(meta_graph: meta_graph_pb2.MetaGraphDef, threads: int | None) -> Any:
    graph = tf.Graph()
    with _importing, graph.as_default():
        tf.graph_util.import_graph_def(
            meta_graph.graph_def,
            name="",
            producer_op_list=meta_graph.meta_info_def.stripped_op_list,
        )
    config = config_pb2.ConfigProto()
    if threads is not None:
        config.intra_op_parallelism_threads = threads
        config.inter_op_parallelism_threads = threads
    return tf.compat.v1.Session(graph=graph, config=config)


def _restore(graph: Graph, folder: Path) -> None:
    # A model without the index is taken for a model without variables. So a copy that
    # is not finished loads, and fails at every request: tensorflow/serving#1086.
    if not os.path.exists(folder / "variables" / "variables.index"):
        return
    saver = graph.meta_graph.saver_def
    feeds, values = _asset_feeds(graph.meta_graph, folder)
    restore = graph.call(
        [saver.filename_tensor_name, *feeds], [], [saver.restore_op_name]
    )
    restore([_path(folder / "variables" / "variables"), *values])


def _initialize(graph: Graph, folder: Path) -> None:
    name = _init_op(graph.meta_graph, folder)
    if name:
        feeds, values = _asset_feeds(graph.meta_graph, folder)
        graph.call(feeds, [], [name])(values)


def _init_op(meta_graph: meta_graph_pb2.MetaGraphDef, folder: Path) -> str:
    signature = meta_graph.signature_def.get(_INIT_OP)
    if signature is not None:
        return str(signature.outputs[_INIT_OP].name)
    for key in ("saved_model_main_op", "legacy_init_op"):
        if key in meta_graph.collection_def:
            names = meta_graph.collection_def[key].node_list.value
            if len(names) != 1:
                raise ServableError(
                    Code.FAILED_PRECONDITION,
                    f"Expected exactly one main op in : {folder}",
                )
            return str(names[0])
    return ""


def _asset_feeds(
    meta_graph: meta_graph_pb2.MetaGraphDef, folder: Path
) -> tuple[list[str], list[Array]]:
    assets = list(meta_graph.asset_file_def)
    if not assets and "saved_model_assets" in meta_graph.collection_def:
        # Models of TensorFlow 1 keep the same message in a collection.
        for packed in meta_graph.collection_def["saved_model_assets"].any_list.value:
            asset = meta_graph_pb2.AssetFileDef()
            packed.Unpack(asset)
            assets.append(asset)
    return (
        [asset.tensor_info.name for asset in assets],
        [_path(folder / "assets" / asset.filename) for asset in assets],
    )


def _path(path: Path) -> Array:
    return np.asarray(os.fsencode(path), np.object_)
