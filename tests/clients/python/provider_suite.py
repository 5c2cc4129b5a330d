"""LangChain's own suite for the makers of chat models and embeddings, at the vendor's stand-in and at the gate before it:
`python provider_suite.py GATE SIMULATOR`. What passes without the gate passes with it."""
import os
import subprocess
import sys

MODELS = {"llama": "@cf/meta/llama-3.3-70b-instruct-fp8-fast", "gemma": "@cf/google/gemma-4-26b-a4b-it"}


class Outcomes:
    """What became of each test."""

    def __init__(self):
        self.seen = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            expected = hasattr(report, "wasxfail")
            self.seen[report.nodeid.split("::", 1)[1]] = "expected" if expected else report.outcome


def run(base):
    """The suite at one address, in a process of its own; a line a test."""
    said = subprocess.run([sys.executable, __file__, "--at", base], capture_output=True, text=True)
    lines = [line.split(" ", 2)[1:] for line in said.stdout.splitlines() if line.startswith("outcome ")]
    assert lines, said.stdout + said.stderr
    return {test: outcome for outcome, test in lines}, said.stdout


def at(base):
    import pytest
    os.environ["PROVIDER_SUITE_BASE"] = base
    outcomes = Outcomes()
    # One loop for all: LangChain keeps its connections from test to test.
    options = ["asyncio_mode=auto", "asyncio_default_test_loop_scope=session", "asyncio_default_fixture_loop_scope=session"]
    pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", *(f"-o{option}" for option in options), __file__], plugins=[outcomes])
    for test, outcome in outcomes.seen.items():
        print("outcome", outcome, test)


if __name__ == "__main__":
    if sys.argv[1] == "--at":
        at(sys.argv[2])
        sys.exit()
    gate, simulator = sys.argv[1:3]
    without, _ = run(f"{simulator}/client/v4/accounts/acc/ai/v1")
    through, said = run(f"{gate}/v1")
    lost = sorted(test for test, outcome in without.items() if outcome == "passed" and through.get(test) != "passed")
    count = lambda outcomes: sum(outcome == "passed" for outcome in outcomes.values())
    print(f"{count(through)} of {len(through)} pass at the gate, {count(without)} of {len(without)} without it")
    for test in sorted(set(through) | set(without)):
        if through.get(test) != "passed" or without.get(test) != "passed":
            print(f"  {test}: {through.get(test)} at the gate, {without.get(test)} without")
    assert not lost and count(through) > len(through) / 2, f"{lost}\n{said}"
else:
    from langchain_core.language_models import BaseChatModel
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

    BASE = os.environ["PROVIDER_SUITE_BASE"]

    class Chat(ChatModelIntegrationTests):
        @property
        def chat_model_class(self) -> type[BaseChatModel]:
            return ChatOpenAI

        @property
        def chat_model_params(self) -> dict:
            return {"model": self.id, "base_url": BASE, "api_key": "any", "max_retries": 0, "stream_usage": True}

        @property
        def supports_json_mode(self) -> bool:
            return True

        @property
        def has_tool_choice(self) -> bool:
            return True

    class TestLlama(Chat):
        id = MODELS["llama"]

    class TestGemma(Chat):
        id = MODELS["gemma"]

    class TestEmbeddings(EmbeddingsIntegrationTests):
        @property
        def embeddings_class(self):
            return OpenAIEmbeddings

        @property
        def embedding_model_params(self) -> dict:
            return {"model": "@cf/baai/bge-m3", "base_url": BASE, "api_key": "any", "check_embedding_ctx_length": False}
