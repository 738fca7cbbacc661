/* global document, fetch, window */
// The script of /admin/docs: asks for a token, then shows the routes by it.
const form = document.getElementById('form');
const fault = document.getElementById('fault');

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const authorization = `Bearer ${document.getElementById('token').value.trim()}`;
  try {
    const response = await fetch('/admin/openapi.json', { headers: { authorization } });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.detail);
    form.remove();
    window.SwaggerUIBundle({
      dom_id: '#docs',
      spec: answer,
      validatorUrl: null,
      docExpansion: 'list',
      requestInterceptor: (request) => {
        request.headers.authorization = authorization;
        return request;
      },
    });
  } catch (error) {
    fault.textContent = error.message;
  }
});
