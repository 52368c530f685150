"""One engine behind its own OpenAI application and a plain HTTP server, with nothing of ours in between: the bare server.

python -m benchmarks.rivals.engine PORT LLM_CONFIG      (a JSON object: the section `llm` of a configuration)
"""

import json
import sys

import uvicorn
import uvloop

from deployments.config import LlmConfig
from deployments.llm import create_engine


async def main(port: int, config: LlmConfig) -> None:
    engine = create_engine(config, "127.0.0.1")
    await engine.start()
    server = uvicorn.Server(uvicorn.Config(engine.app, host="127.0.0.1", port=port, access_log=False, log_level="warning", lifespan="off"))
    try:
        await server.serve()
    finally:
        await engine.stop()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), LlmConfig.model_validate(json.loads(sys.argv[2]))))  # as `vllm serve` does
