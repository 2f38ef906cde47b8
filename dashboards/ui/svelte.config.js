// Read by svelte-check and by the Vite plugin. Runes everywhere; there is no older syntax to keep alive.
export default { compilerOptions: { runes: true } };
