package faultpoint

// The steps of serving a device as an extended resource, in their order.
const (
	DevicePluginNoted     Step = "device-plugin-noted"
	DevicePluginSetAside  Step = "device-plugin-set-aside"
	DevicePluginRepaired  Step = "device-plugin-repaired"
	DevicePluginTaken     Step = "device-plugin-taken"
	DevicePluginGiven     Step = "device-plugin-given"
	DevicePluginPrepared  Step = "device-plugin-prepared"
	DevicePluginFile      Step = "device-plugin-file"
	DevicePluginFiles     Step = "device-plugin-files"
	DevicePluginUseNoted  Step = "device-plugin-use-noted"
	DevicePluginReleased  Step = "device-plugin-released"
	DevicePluginInfoGone  Step = "device-plugin-info-gone"
	DevicePluginFreed     Step = "device-plugin-freed"
	DevicePluginFilesGone Step = "device-plugin-files-gone"
)

// DevicePluginSteps returns all steps of extended resources.
func DevicePluginSteps() []Step {
	return []Step{
		DevicePluginNoted, DevicePluginSetAside, DevicePluginRepaired, DevicePluginTaken, DevicePluginGiven, DevicePluginPrepared,
		DevicePluginFile, DevicePluginFiles, DevicePluginUseNoted, DevicePluginReleased,
		DevicePluginInfoGone, DevicePluginFreed, DevicePluginFilesGone,
	}
}
