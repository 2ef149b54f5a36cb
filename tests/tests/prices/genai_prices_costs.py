"""Prices exchanges with the package genai-prices: genai_prices_costs.py PRICE_LIST EXCHANGES, both JSON. Prints the costs as JSON."""

import json
import sys
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from genai_prices import types
from genai_prices.data_snapshot import DataSnapshot, get_snapshot

FLAVORS = {
    "openai-chat": ["chat", "default"],
    "openai-responses": ["responses", "default"],
    "anthropic-messages": ["anthropic", "default"],
}


def readable(usage):
    """The usage in the form in which the package reads all of it. Two forms it reads in part: DeepSeek's older name for tokens
    from the cache, and passes of Anthropic that compacted the conversation, which are charged beside the counts at the top."""
    usage = dict(usage)
    if "prompt_cache_hit_tokens" in usage and not usage.get("prompt_tokens_details"):
        usage["prompt_tokens_details"] = {"cached_tokens": usage["prompt_cache_hit_tokens"]}
    for one in usage.get("iterations") or []:
        if one.get("type") == "compaction":
            for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens"):
                usage[name] = (usage.get(name) or 0) + (one.get(name) or 0)
    return usage


def provider_of(snapshot, name, model):
    """The provider with the name of the upstream, or else the one to which the model's name belongs."""
    try:
        return snapshot.find_provider(None, name, None)
    except LookupError:
        return snapshot.find_provider(model.lower(), None, None)


def cost(snapshot, exchange):
    error = None
    for model in filter(None, [exchange["answered_model"], exchange["requested_model"]]):
        for flavor in FLAVORS[exchange["dialect"]]:
            try:
                provider = provider_of(snapshot, exchange["provider"], model)
                _, usage = provider.extract_usage({"model": model, "usage": readable(exchange["usage"])}, api_flavor=flavor)
                tier = exchange["usage"].get("service_tier")
                context = {"service_tier": tier} if isinstance(tier, str) else {}
                if tier == "batch":
                    context["processing"] = "batch"
                at = datetime.fromisoformat(exchange["at"])
                price = snapshot.calc(usage, model, provider.id, None, at, context)
                return price.total_price, None
            except (LookupError, ValueError) as raised:
                error = str(raised)
    return None, error


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        providers = types._providers_from_raw(json.load(file, parse_float=Decimal))
    snapshot = DataSnapshot(providers=providers, from_auto_update=False)
    own = get_snapshot()
    with open(sys.argv[2], encoding="utf-8") as file:
        exchanges = json.load(file)
    answers = []
    for exchange in exchanges:
        price, error = cost(snapshot, exchange)
        if cost(own, exchange)[0] != price:
            sys.exit(f"{exchange['name']}: the package has other prices than the list")
        nanodollars = None if price is None else int((price * 10**9).quantize(Decimal(1), ROUND_HALF_UP))
        answers.append({"name": exchange["name"], "nanodollars": nanodollars, "error": error})
    json.dump(answers, sys.stdout)


main()
