"""GPU shares and several nodes, with logical GPUs: Ray's bookkeeping is the same as on real
ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.graph import Graph, cluster, configure, free_port, painter, serving


def visible_devices(trace: Path) -> dict[str, str]:
    """Return what CUDA_VISIBLE_DEVICES was for each prompt, as the painter wrote it down."""
    lines = [line.split(" ", 2) for line in trace.read_text().splitlines()]
    return {prompt: device for device, _, prompt in lines}


@pytest.fixture(scope="class")
def one_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Graph, Path]]:
    """Two models, `one` and `two`, in a cluster with one GPU; and what the painter writes down."""
    folder = tmp_path_factory.mktemp("one_gpu")
    config = configure(folder, painter("one"), painter("two"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAINTER_TRACE", str(folder / "trace"))
        with cluster(num_cpus=4, num_gpus=1), serving(config) as graph:
            graph.until_ready(2)
            yield graph, folder / "trace"


@pytest.mark.system
class TestOneGpu:
    def test_two_models_at_half_a_gpu_share_it(self, one_gpu: tuple[Graph, Path]) -> None:
        """Both see GPU 0. `test_graph` starts two such models in a cluster without any: there they
        run on the CPU."""
        graph, trace = one_gpu
        for name in ("one", "two"):
            graph.generate(prefer_backend=name, prompt=f"painted by {name}")
        replicas = graph.http.get("/system-info").json()["replicas"]
        assert {replica["device"] for replica in replicas} == {"cuda"}
        assert visible_devices(trace) == {"painted by one": "0", "painted by two": "0"}

    def test_a_replica_whose_memory_does_not_come_back_is_replaced(
        self, one_gpu: tuple[Graph, Path]
    ) -> None:
        """Its job completes, and so does the next one, which waits for the new process."""
        graph, trace = one_gpu
        prompts = ["a leaky hand", "a ball after it"]
        ids = [graph.submit(prefer_backend="one", prompt=prompt) for prompt in prompts]
        jobs = [graph.until_done(job_id) for job_id in ids]
        assert [job["status"] for job in jobs] == ["completed"] * 2, jobs
        assert [job["attempts"] for job in jobs] == [1, 1]
        assert all(graph.download(job["video_url"]) for job in jobs)
        lines = [line.split(" ", 2) for line in trace.read_text().splitlines()]
        pids = {prompt: pid for _, pid, prompt in lines}
        assert pids["a leaky hand"] != pids["a ball after it"]


@pytest.mark.system
def test_two_nodes_work_at_the_same_time_and_one_may_die(tmp_path: Path) -> None:
    """Two nodes with a GPU each and two replicas: one job a node; when the second node is killed
    in mid-job, that job completes on the first, and both files download."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 1})
    second = nodes.add_node(num_cpus=2, num_gpus=1)
    ray.init(address=nodes.address, log_to_driver=False)
    model = painter("one", num_gpus=1, num_replicas=2)
    try:
        with serving(configure(tmp_path, model), free_port()) as graph:
            graph.until_ready(2)
            ids = [graph.submit(prompt=f"a slow hand {n}", seed=str(n)) for n in range(2)]
            for job_id in ids:
                graph.until(job_id, "denoise")
            nodes.remove_node(second, allow_graceful=False)
            jobs = [graph.until_done(job_id) for job_id in ids]
            assert [job["status"] for job in jobs] == ["completed"] * 2
            assert sorted(job["attempts"] for job in jobs) == [1, 2]
            assert all(graph.download(job["video_url"]) for job in jobs)
    finally:
        ray.shutdown()
        nodes.shutdown()
