import asyncio

from launcher import EndpointError, Model, aconnect, connect


def shortened(model: Model, text: str) -> str:
    """Return what a model makes of a text, wherever the model runs."""
    return model.chat(f"In one line: {text}", max_tokens=40).text


async def main() -> None:
    async with aconnect() as model, model.chat_stream("Tell a story") as stream:
        async for chunk in stream:
            print(chunk.text, end="", flush=True)


try:
    with connect() as model:  # LAUNCH_URL, by LAUNCH_API_KEY; or connect("http://gpu1:8000", api_key="…")
        print(model.name, model.context_length, model.base_url)
        print(shortened(model, "Nyx is a small boat."))
    asyncio.run(main())
except EndpointError as error:
    print(error, error.hint, sep="\n")
