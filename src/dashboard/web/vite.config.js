// Relative addresses, no inlined assets: the content security policy allows what the box itself serves and nothing else.
export default {
  base: './',
  build: { target: 'es2021', assetsInlineLimit: 0, modulePreload: { polyfill: false }, chunkSizeWarningLimit: 700 },
  server: { proxy: { '/api': 'http://127.0.0.1:8080', '/media': 'http://127.0.0.1:8080' } },
};
