// The document is next to the folder of this file, whatever prefix a proxy has added.
SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: new URL("../openapi.json", document.currentScript.src).href,
  deepLinking: true,
  // The badge would send the document's address to another host.
  validatorUrl: null,
});
