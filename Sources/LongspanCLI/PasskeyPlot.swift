import Foundation
import LongspanKernels
import LongspanModels

/// How much of the keys a model found, as SVG heat maps of length by depth, a panel for each policy. A cell's colour and number
/// are the mean share of leading digits that match; a frame marks cells whose keys were all found.
struct PasskeyPlot {
  let report: PasskeyReport
  let policies: [String]
  let lengths: [Int]
  let depths: [Double]
  let title: String

  private static let left = 56.0
  private static let top = 40.0
  private static let panelTop = 44.0
  private static let panelGap = 30.0
  private static let rowHeight = 20.0
  private static let legend = 56.0

  func write(to path: String) throws(LongspanError) {
    try OutputFile.write(svg, to: path)
  }

  /// Wide enough for the numbers of a cell, and for the title of a panel.
  private var cellWidth: Double {
    let longest = Double(policies.map(\.count).max() ?? 0) * 6.5 + 90
    return max(52, longest / Double(max(1, lengths.count)))
  }
  private var panelWidth: Double { Double(lengths.count) * cellWidth + Self.panelGap }
  private var panelHeight: Double { Self.panelTop + Double(depths.count) * Self.rowHeight + 40 }
  /// Panels side by side.
  private var columns: Int { min(2, max(1, policies.count)) }

  var svg: String {
    // at least as wide as the title and the legend
    let width = Self.left + max(Double(columns) * panelWidth, Double(title.count) * 9, 340)
    let rows = (policies.count + columns - 1) / columns
    let height = Self.top + Double(rows) * panelHeight + Self.legend
    var parts = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Int(width.rounded(.up))) \(Int(height.rounded(.up)))\" "
        + "font-family=\"sans-serif\" font-size=\"11\">",
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
      "<text x=\"\(decimal(Self.left, 1))\" y=\"24\" font-size=\"15\">\(title.escapedForXML)</text>",
    ]
    for (index, policy) in policies.enumerated() {
      parts += panel(
        policy, x: Self.left + Double(index % columns) * panelWidth,
        y: Self.top + Double(index / columns) * panelHeight, hasDepths: index % columns == 0)
    }
    parts += legend(y: height - Self.legend + 8)
    return (parts + ["</svg>"]).joined(separator: "\n") + "\n"
  }

  private func panel(_ policy: String, x: Double, y: Double, hasDepths: Bool) -> [String] {
    let exact = report.summary(policy: policy).exact
    let cells = y + Self.panelTop
    let end = cells + Double(depths.count) * Self.rowHeight
    var parts = [
      "<g class=\"panel\">",
      text("\(policy): exact \(decimal(exact, 2))", x, cells - 10, "start", "font-size=\"12\""),
    ]
    for (row, depth) in depths.enumerated() {
      let at = cells + Double(row) * Self.rowHeight
      if hasDepths { parts.append(text("\(decimal(100 * depth, 0))%", x - 6, at + 14, "end")) }
      for (column, length) in lengths.enumerated() {
        parts += cell(
          report.summary(policy: policy, length: length, depth: depth), x: x + Double(column) * cellWidth,
          y: at)
      }
    }
    for (column, length) in lengths.enumerated() {
      parts.append(text("\(length)", x + (Double(column) + 0.5) * cellWidth, end + 14, "middle"))
    }
    parts.append(
      text("tokens of the prompt", x + Double(lengths.count) * cellWidth / 2, end + 30, "middle"))
    if hasDepths {
      let middle = (cells + end) / 2
      parts.append(
        text(
          "depth of the key", x - 42, middle, "middle",
          "transform=\"rotate(-90 \(decimal(x - 42, 1)) \(decimal(middle, 1)))\""))
    }
    return parts + ["</g>"]
  }

  private func cell(_ summary: PasskeyReport.Summary, x: Double, y: Double) -> [String] {
    let isFound = summary.exact == 1
    return [
      "<rect x=\"\(decimal(x + 1, 1))\" y=\"\(decimal(y + 1, 1))\" width=\"\(decimal(cellWidth - 2, 1))\" "
        + "height=\"\(decimal(Self.rowHeight - 2, 1))\" fill=\"\(Self.color(summary.partial))\""
        + (isFound ? " stroke=\"#333\"/>" : "/>"),
      text(
        decimal(summary.partial, 2), x + cellWidth / 2, y + 14, "middle",
        summary.partial > 0.6 ? "fill=\"white\"" : ""),
    ]
  }

  private func legend(y: Double) -> [String] {
    var parts: [String] = []
    for step in 0...10 {
      parts.append(
        "<rect x=\"\(decimal(Self.left + Double(step) * 16, 1))\" y=\"\(decimal(y, 1))\" width=\"16\" height=\"12\" "
          + "fill=\"\(Self.color(Double(step) / 10))\"/>")
    }
    parts.append(text("share of leading digits found, 0 to 1; framed: every key", Self.left, y + 28, "start"))
    return parts
  }

  private func text(
    _ text: String, _ x: Double, _ y: Double, _ anchor: String, _ attributes: String = ""
  ) -> String {
    "<text x=\"\(decimal(x, 1))\" y=\"\(decimal(y, 1))\" text-anchor=\"\(anchor)\""
      + (attributes.isEmpty ? "" : " \(attributes)") + ">\(text.escapedForXML)</text>"
  }

  /// From a light grey for 0 to a dark blue for 1, which also print well in grey.
  private static func color(_ share: Double) -> String {
    let from = [238.0, 238.0, 238.0]
    let to = [8.0, 64.0, 129.0]
    let parts = zip(from, to).map { String(format: "%02x", Int(($0 + ($1 - $0) * share).rounded())) }
    return "#" + parts.joined()
  }
}
