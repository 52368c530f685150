"""GPTCache's own server with its exact map, run in GPTCache's environment: `python gptcache_map.py PORT DIRECTORY`."""

import sys

import uvicorn
from gptcache import cache
from gptcache.manager import manager_factory
from gptcache.processor.pre import get_prompt
from gptcache_server import server

cache.init(pre_embedding_func=get_prompt, data_manager=manager_factory("map", data_dir=sys.argv[2]))
uvicorn.run(server.app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
