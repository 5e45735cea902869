import Foundation
import LongspanKernels

/// Tells model files apart, so that a calibration is not used on another model: FNV-1a of 64 bits over the weights file. It
/// guards against mistakes, not against somebody who wants two files to look alike.
public enum ModelFingerprint {
  /// The fingerprint of a model, as `fnv1a64:` and 16 hexadecimal digits.
  ///
  /// - Parameter path: of a GGUF file, or of a folder with `model.safetensors`.
  public static func of(path: String) throws(LongspanError) -> String {
    var isFolder: ObjCBool = false
    let exists = FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
    let file = try MappedFile(path: exists && isFolder.boolValue ? path + "/model.safetensors" : path)
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    let bytes = file.bytes
    for offset in 0..<bytes.byteCount {
      hash = (hash ^ UInt64(bytes.unsafeLoad(fromByteOffset: offset, as: UInt8.self))) &* 0x100_0000_01b3
    }
    let digits = String(hash, radix: 16)
    return "fnv1a64:" + String(repeating: "0", count: 16 - digits.count) + digits
  }
}
