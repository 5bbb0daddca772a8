/* Lua: runs the script named by the first argument, with the others as its arguments. */
#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"
#include <stdio.h>

int main(int argc, char **argv) {
    lua_State *lua = luaL_newstate();
    if (lua == NULL || argc < 2)
        return 2;
    luaL_openlibs(lua);
    int status = luaL_loadfile(lua, argv[1]);
    for (int i = 2; i < argc && status == LUA_OK; i++)
        lua_pushstring(lua, argv[i]);
    if (status == LUA_OK)
        status = lua_pcall(lua, argc - 2, 0, 0);
    if (status != LUA_OK)
        fprintf(stderr, "lua: %s\n", lua_tostring(lua, -1));
    lua_close(lua);
    return status == LUA_OK ? 0 : 1;
}
