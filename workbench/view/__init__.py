"""How runs look: layouts, words and payloads for the pages, without Streamlit."""
