export const mockApi = () => ({ name: 'mock' });
