"""A channel that does what a test tells it."""

#: A channel that does what the test says.
PUPPET = {
    "puppet.py": '''
        """Does what it is told."""
        import asyncio
        import time

        from realtime import Channel, Rejected, hookimpl


        class Puppet(Channel):
            """Does what it is told."""

            async def on_message(self, client, message):
                match message.data:
                    case "say":
                        return await self.publish(client.topic, "said")
                    case "fail":
                        raise LookupError("no such string")
                    case "block":
                        time.sleep(0.5)
                    case "hang":
                        await asyncio.sleep(1000)
                    case "refuse":
                        raise Rejected("not today", 409)
                    case "close":
                        await client.close(4321, "enough")


        @hookimpl
        def register_channels():
            return {"puppet": Puppet}
    '''
}
PULLED = "channels: {puppet: {plugin: puppet, path: /p}}"
