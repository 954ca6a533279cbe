"""LlamaIndex: a query engine and a streaming chat engine under a limit in dollars. Needs OPENAI_API_KEY."""

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI

from ai_budget_callbacks import Budget, BudgetExceeded
from ai_budget_callbacks.llama_index import BudgetCallbackHandler

budget = BudgetCallbackHandler(Budget(usd="0.01", warn_at=("0.5", "0.8")))
Settings.callback_manager = CallbackManager([budget])  # before models and indexes are made
Settings.llm = OpenAI(model="gpt-4o-mini", max_tokens=100)
Settings.embed_model = OpenAIEmbedding(model="text-embedding-3-small")

documents = [Document(text="A ledger lists what was spent."), Document(text="A budget says what may be.")]

try:
    index = VectorStoreIndex.from_documents(documents)
    for question in ("What is a ledger?", "What is a budget?"):
        print(index.as_query_engine().query(question))
    chat = index.as_chat_engine(chat_mode="context")
    print("".join(chat.stream_chat("And how do they differ?").response_gen))
except BudgetExceeded as stop:
    print(f"Stopped: {stop}")

print(budget.summary())
