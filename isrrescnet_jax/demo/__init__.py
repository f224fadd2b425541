"""A page on which visitors upscale their own pictures: `isrrescnet demo` (extra `demo`).

work     bytes of a picture in, bytes of pictures out; knows of no page
disk     what lies there for visitors, and for how long
page     what visitors see (Gradio)
server   where it is served, what it takes from strangers, and that nothing stays
"""
