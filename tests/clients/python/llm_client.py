"""llm, the command line tool, whose models of one's own stand in a file."""
import os
import pathlib
import subprocess
import sys
import tempfile

from gate import LLAMA, MODELS, PENNILESS, V1

home = tempfile.TemporaryDirectory()
environment = {**os.environ, "LLM_USER_PATH": home.name}
models = "".join(f"""
- model_id: {model.rsplit("/")[-1]}
  model_name: "{model}"
  api_base: "{V1}"
  api_key_name: tollgate
  supports_tools: true
  supports_schema: true
""" for model in (*MODELS, PENNILESS))
pathlib.Path(home.name, "extra-openai-models.yaml").write_text(models)


def llm(*arguments):
    ran = subprocess.run([sys.executable, "-m", "llm", *arguments], env=environment, capture_output=True, text=True)
    return ran.stdout if ran.returncode == 0 else f"failed: {ran.stderr}{ran.stdout}"


llm("keys", "set", "tollgate", "--value", "any")
for model in MODELS:
    name = model.rsplit("/")[-1]
    whole, streamed = llm("-m", name, "--no-stream", "Why is the sky blue?"), llm("-m", name, "-u", "Why is the sky blue?")
    assert whole.strip() and "failed" not in whole, whole
    assert streamed.strip() == whole.strip(), (model, streamed, whole)
    tooled = llm("-m", name, "--functions", "def weather(city: str) -> str:\n    return 'Rain.'", "--td", "weather?")
    assert tooled.strip() and "failed" not in tooled, tooled
person = llm("-m", LLAMA.rsplit("/")[-1], "--schema", "name, age int", "somebody")
assert '"name"' in person and '"age"' in person, person
logged = llm("logs", "-n", "1", "--json")
assert '"input_tokens"' in logged, logged
poor = llm("-m", PENNILESS.rsplit("/")[-1], "--no-stream", "hello")
assert "failed" in poor and "402" in poor, poor
print("llm is at home")
