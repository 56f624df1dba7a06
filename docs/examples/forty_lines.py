import asyncio

from launcher import ContextOverflowError, ResolutionError, alaunch, launch, list_models, plan

print([m.name for m in list_models(ability="chat") if m.cached])
try:
    plan("mistral-instruct-v0.2", engine="vllm", model_format="pytorch", quantization="4-bit")
except ResolutionError as error:
    print(error, error.hint, *(r.reason for r in error.rejected), sep="\n  ")

p = plan("smollm2-instruct", model_format="gguf", quantization="Q4_1")
print(p.engine, p.repo_id, p.revision, p.download_bytes, *p.reasons, sep="\n  ")
with launch(p, progress=lambda e: print(e.stage, e.done, e.total)) as model:
    print(model.generate("My favourite condiment is", max_tokens=25).text)  # text as given, no template
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of France?"}]
    reply = model.chat(talk, temperature=0, seed=1)
    print(reply.text, reply.finish_reason, reply.usage.total_tokens, reply.timings.tokens_per_s)
    for chunk in model.chat_stream([*talk, reply.message, {"role": "user", "content": "And of Spain?"}]):
        print(chunk.text, end="", flush=True)
    print([r.text for r in model.chat_batch([f"{n} squared?" for n in range(32)], max_tokens=8)])
    try:
        model.chat("x " * model.context_length)
    except ContextOverflowError as error:
        print(error.prompt_tokens, ">", error.context_length)


async def main() -> None:
    async with alaunch("smollm2-instruct") as model, model.chat_stream("Tell a story") as stream:
        async for chunk in stream:
            print(chunk.text)
            break  # leaving stops the generation


asyncio.run(main())
