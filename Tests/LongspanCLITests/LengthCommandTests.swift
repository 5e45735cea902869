import Foundation
import Testing

/// The models that come along, calibrated and filtered by the command.
@Suite struct LengthCommandTests {
  static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
  static let novel = root.appending(path: "Benchmarks/Data/persuasion.txt").path
  static let mixture = root.appending(path: "Benchmarks/Data/recall-calibration.txt").path

  static func withFile<Result>(_ body: (String) throws -> Result) throws -> Result {
    let url = FileManager.default.temporaryDirectory.appending(path: "longspan-\(UUID().uuidString).json")
    defer { try? FileManager.default.removeItem(at: url) }
    return try body(url.path)
  }

  @Test(arguments: [("mamba2", 0.05, 0.05), ("mamba", 0.08, 1e-8)])
  func longMambaRecallsAt16TimesTheTrainedLength(model: String, clamp: Double, theta: Double) throws {
    try Self.withFile { file in
      let made = try Command.run([
        "calibrate", "--model", model, "--text", Self.mixture, "--aggregate", "max", "--clamp", "\(clamp)",
        "--theta", "\(theta)", "-o", file, "--json",
      ])
      #expect(made.status == 0, "\(made.errors)")
      let result = try Command.run([
        "eval", "length", "--model", model, "--text", Self.novel, "--multiples", "1,16", "--windows", "1",
        "--prompts", "4", "--filter", "none", "--filter", "longmamba:\(file)", "--json",
      ])
      #expect(result.status == 0, "\(result.errors)")
      let report = try #require(
        JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
      let rows = try #require(report["rows"] as? [[String: Any]])
      let recall = try rows.map { try #require($0["recall"] as? Double) }
      #expect(recall.count == 4)
      #expect(recall[0] > 0.9 && recall[1] < 0.2)
      // nothing is dropped at the trained length
      #expect(recall[2] == recall[0] && recall[3] > 0.8)
    }
  }

  @Test func aCalibrationIsOfOneModel() throws {
    try Self.withFile { file in
      _ = try Command.run(["calibrate", "--model", "mamba2", "--text", Self.mixture, "-o", file])
      let other = try Command.run([
        "generate", "--model", "mamba", "--prompt", "It was", "-n", "2", "--filter", "longmamba:\(file)",
      ])
      #expect(other.status == 1 && other.errors.contains("not of this model"))
      let same = try Command.run([
        "generate", "--model", "mamba2", "--prompt", "It was", "-n", "2", "--filter", "longmamba:\(file)",
      ])
      #expect(same.status == 0, "\(same.errors)")
    }
  }

  @Test func drawsALineAFilter() throws {
    try Self.withFile { file in
      let result = try Command.run([
        "eval", "length", "--text", Self.novel, "--multiples", "1,2", "--windows", "1", "--prompts", "1",
        "--filter",
        "none", "--filter", "scale", "--filter", "decimamba:layers=1", "--plot", file,
      ])
      #expect(result.status == 0, "\(result.errors)")
      let svg = try String(contentsOfFile: file, encoding: .utf8)
      #expect(svg.hasPrefix("<svg") && svg.components(separatedBy: "<polyline").count == 7)
    }
  }

  @Test(arguments: [
    (["calibrate", "--text", "/no/such", "-o", "unwritten.json"], "/no/such"),
    (["calibrate", "--text", Self.mixture, "-o", "/no/such/x.json"], "cannot be written"),
    (["calibrate", "--text", Self.mixture, "--length", "257", "-o", "unwritten.json"], "trained on"),
    (["calibrate", "--text", Self.mixture, "--windows", "6", "-o", "unwritten.json"], "too few"),
    (["eval", "length", "--text", Self.novel, "--multiples", "0"], "--multiples"),
    (["eval", "length", "--text", Self.novel, "--depths", "2"], "--depths"),
    (["eval", "length", "--text", Self.mixture], "fewer than a window"),
    (["eval", "length", "--text", Self.novel, "--filter", "no"], "no filter is named"),
    (["eval", "length", "--text", Self.novel, "--filter", "decimamba:layers=2"], "no layer 2"),
    (["generate", "--prompt", "x", "--kv", "lagkv"], "mamba2"),
  ])
  func failuresAreOneLineThatNamesTheFault(arguments: [String], message: String) throws {
    let result = try Command.run(arguments)
    #expect(result.status == 1 && result.output.isEmpty)
    #expect(
      result.errors.split(separator: "\n").count == 1 && result.errors.contains(message), "\(result.errors)")
  }
}
